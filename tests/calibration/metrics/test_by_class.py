"""The table of false alarms by class: counts, order, Holm's correction and its level in simulation."""

import numpy as np
import pytest
from draws import at_most, simulated
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from diffood.calibration.metrics.by_class import alarms_by_class, holm
from diffood.calibration.metrics.rates import clopper_pearson
from diffood.errors import UsageError


def test_rows_count_and_rank_the_classes() -> None:
    scores = np.array([1.0, 3.0, 3.0, 1.0, 1.0, 3.0, 2.0])
    rows = alarms_by_class(scores, np.array([0, 0, 4, 4, 4, 2, 0]), threshold=2.0, alpha=0.05)
    assert [(row.predicted, row.count, row.flagged) for row in rows] == [(2, 1, 1), (0, 3, 1), (4, 3, 1)]
    assert [row.rate for row in rows] == [1.0, 1 / 3, 1 / 3]
    assert rows[1].interval == clopper_pearson(1, 3)
    # 3 * 0.05 for one of one; 2 * (1 - 0.95^3) for one of three, twice.
    assert [row.p_value for row in rows] == pytest.approx([0.15, 0.28525, 0.28525])


@given(flagged=st.integers(0, 50), more=st.integers(0, 200), alpha=st.sampled_from([0.01, 0.05, 0.5]))
def test_one_class_has_the_exact_binomial_test(flagged: int, more: int, alpha: float) -> None:
    count = max(1, flagged + more)
    (row,) = alarms_by_class(np.arange(count) < flagged, np.zeros(count, np.int64), 0.5, alpha)
    assert row.p_value == pytest.approx(stats.binomtest(flagged, count, alpha, alternative="greater").pvalue)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_steps_reject(p_values: list[float]) -> None:
    level, rejected = 0.05, set()
    for step, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[position] * (len(p_values) - step) > level:
            break
        rejected.add(position)
    assert {position for position, adjusted in enumerate(holm(p_values)) if adjusted <= level} == rejected


@simulated(100, 1000)
def test_a_table_names_a_wrong_class_in_at_most_five_percent(draws: int) -> None:
    generator = np.random.default_rng(20261129)
    alpha, wrong, found = 0.05, 0, 0
    for _ in range(draws):
        predicted = generator.integers(6, size=900)
        # Class 5 has three times the rate it should have, the others the highest allowed.
        rows = alarms_by_class(generator.random(900) + 0.1 * (predicted == 5), predicted, 1 - alpha, alpha)
        named = {row.predicted for row in rows if row.p_value <= 0.05}
        wrong += bool(named - {5})
        found += 5 in named
    assert at_most(wrong, draws, 0.05)
    assert found / draws > 0.9


def test_unusable_arguments_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="alpha is 5"):
        alarms_by_class(np.arange(3.0), np.zeros(3, np.int64), 1.0, 5)
    with pytest.raises(UsageError, match=r"Predicted classes have shape \[2\]; expected \[3\]"):
        alarms_by_class(np.arange(3.0), np.zeros(2, np.int64), 1.0, 0.05)
