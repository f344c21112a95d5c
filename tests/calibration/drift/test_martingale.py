"""Laws of the drift martingale, by simulation: its p-values, its false alarms, its delay, the groups it names."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binomtest, kstest, mannwhitneyu

from diffood.calibration.checked import FloatArray
from diffood.calibration.drift.martingale import (
    bet_factors,
    estimate_start,
    initial_wealth,
    online_p_values,
    play,
    rank_groups,
    tie_breaker,
)

CALIBRATED, SERVED, BEGINNING = 500, 1000, 500
SHARE, SHIFT = 0.2, 4.0  # of served scores that are clearly higher, and by how many standard deviations
LEVEL = 0.01


@dataclass(frozen=True)
class Simulation:
    """p_values and log10 path, float64 [sequences, SERVED]."""

    p_values: FloatArray
    path: FloatArray

    def first_alarms(self, level: float) -> FloatArray:
        """Index of the first alarm of each sequence, inf where there is none."""
        alarms = self.path >= -np.log10(level)
        return np.where(alarms.any(1), alarms.argmax(1), np.inf)


def simulate(sequences: int, share: float, seed: int) -> Simulation:
    generator = np.random.default_rng(seed)
    calibration = np.sort(generator.normal(size=(sequences, CALIBRATED)), 1)
    served = generator.normal(size=(sequences, SERVED))
    served[:, BEGINNING:] += SHIFT * (generator.random((sequences, SERVED - BEGINNING)) < share)
    ties = generator.random((sequences, SERVED))
    p_values = np.stack([online_p_values(*each)[0] for each in zip(calibration, served, ties, strict=True)])
    return Simulation(p_values, play(initial_wealth((sequences,)), p_values)[1])


few_and_many = pytest.mark.parametrize(
    "sequences", [pytest.param(400, id="few draws"), pytest.param(2000, id="many draws", marks=pytest.mark.slow)]
)


@functools.cache
def calm(sequences: int) -> Simulation:
    """Sequences without drift."""
    return simulate(sequences, 0.0, seed=1)


@functools.cache
def contaminated(sequences: int) -> Simulation:
    """Sequences in which, from row 500 on, a fifth of the scores is clearly higher."""
    return simulate(sequences, SHARE, seed=2)


@few_and_many
def test_false_alarms_stay_within_the_level(sequences: int) -> None:
    for level in (0.2, 0.05, 0.01):
        alarms = int(np.isfinite(calm(sequences).first_alarms(level)).sum())
        assert binomtest(alarms, sequences, level, alternative="greater").pvalue > 0.01, (level, alarms)
        assert alarms > 0, level  # Ville's bound is not so loose that nothing is ever bet


@few_and_many
def test_p_values_without_drift_are_uniform_and_independent(sequences: int) -> None:
    p_values = calm(sequences).p_values
    assert kstest(p_values[:, -1], "uniform").pvalue > 0.01  # across sequences
    assert kstest(p_values[0], "uniform").pvalue > 0.01  # along one
    assert abs(np.corrcoef(p_values[:, 0], p_values[:, 1])[0, 1]) < 3 / np.sqrt(sequences)
    assert abs(np.corrcoef(p_values[:, 0], p_values[:, -1])[0, 1]) < 3 / np.sqrt(sequences)


def test_p_values_of_scores_full_of_ties_are_uniform() -> None:
    generator = np.random.default_rng(3)
    scores, ties = generator.integers(0, 4, 5000).astype(np.float64), generator.random(4000)
    scores[scores == 3] = np.inf
    p_values, _ = online_p_values(np.sort(scores[:1000]), scores[1000:], ties)
    assert kstest(p_values, "uniform").pvalue > 0.01


@few_and_many
def test_a_fifth_of_higher_scores_is_detected_soon(sequences: int) -> None:
    first = contaminated(sequences).first_alarms(LEVEL)
    assert np.isfinite(first).all()
    in_time = first[first >= BEGINNING]
    assert 1 - len(in_time) / sequences <= LEVEL
    delay = in_time - BEGINNING + 1
    assert np.median(delay) <= 40  # 33 seen
    assert np.quantile(delay, 0.95) <= 100  # 84 seen


@few_and_many
def test_the_estimated_start_is_close_to_the_truth(sequences: int) -> None:
    first = contaminated(sequences).first_alarms(LEVEL)
    found = np.array(
        [
            estimate_start(p_values[: int(alarm) + 1])
            for p_values, alarm in zip(contaminated(sequences).p_values, first, strict=True)
            if alarm >= BEGINNING
        ]
    )
    error = found - BEGINNING
    assert abs(np.median(error)) <= 3  # the first higher score comes 3 rows after the beginning, in the median
    assert np.mean(np.abs(error) <= 30) >= 0.9


def test_lower_scores_are_detected_too() -> None:
    generator = np.random.default_rng(4)
    served = np.concatenate([generator.normal(size=300), generator.normal(-1, size=300)])
    p_values, _ = online_p_values(np.sort(generator.normal(size=CALIBRATED)), served, generator.random(600))
    path = play(initial_wealth(), p_values)[1]
    assert path[:300].max() < 2 < path.max()
    assert abs(estimate_start(p_values[: int(np.argmax(path >= 2)) + 1]) - 300) < 30


scores = st.lists(st.sampled_from([0.0, 1.0, 1.5, 2.0, float("inf")]), min_size=1, max_size=12)


@given(scores, scores, st.floats(0.01, 0.99))
def test_p_values_are_those_of_the_definition(earlier: list[float], served: list[float], tie: float) -> None:
    found, after = online_p_values(np.sort(earlier), np.array(served), np.full(len(served), tie))
    seen = list(earlier)
    for score, p_value in zip(served, found, strict=True):
        above, equal = sum(other > score for other in seen), seen.count(score)
        assert p_value == (above + tie * (1 + equal)) / (len(seen) + 1)
        assert 0 < p_value < 1
        seen.append(score)
    assert after.tolist() == sorted(seen)


def test_the_order_of_earlier_scores_changes_no_later_p_value() -> None:
    generator = np.random.default_rng(5)
    calibration, served, ties = np.sort(generator.random(50)), generator.random(400), generator.random(400)
    served[300:] = served[:100]
    first = online_p_values(calibration, served, ties)[0]
    served[:300] = generator.permutation(served[:300])
    again = online_p_values(calibration, served, ties)[0]
    assert again[300:].tolist() == first[300:].tolist()


def test_cutting_the_stream_changes_nothing() -> None:
    generator = np.random.default_rng(6)
    calibration, served, ties = np.sort(generator.random(80)), generator.random(1000), generator.random(1000)
    whole, _ = online_p_values(calibration, served, ties)
    path = play(initial_wealth(), whole)[1]
    for cut in (1, 255, 256, 257, 999):
        head, earlier = online_p_values(calibration, served[:cut], ties[:cut])
        tail, _ = online_p_values(earlier, served[cut:], ties[cut:])
        assert np.concatenate([head, tail]).tolist() == whole.tolist(), cut
        wealth, first = play(initial_wealth(), head)
        assert np.concatenate([first, play(wealth, tail)[1]]).tolist() == path.tolist(), cut


def test_every_bet_is_fair() -> None:
    for bet in range(4):
        area, _ = quad(lambda p_value, bet=bet: float(bet_factors(np.array(p_value))[bet]), 0, 1)
        assert area == pytest.approx(1, abs=1e-9), bet
    assert np.all(bet_factors(np.linspace(1e-9, 1, 1001)) > 0)


def test_wealth_neither_overflows_nor_dies() -> None:
    p_values = np.concatenate([np.full(5000, 1e-8), np.tile([0.45, 0.75], 5000), np.full(5000, 1e-8)])
    path = play(initial_wealth(), p_values)[1]
    assert np.all(np.isfinite(path))
    assert path[4999] > 10_000  # a float64 would have ended at 308
    assert path[-1] > path[-5001] + 10_000


def test_tie_breakers_are_uniform_and_always_the_same() -> None:
    drawn = [tie_breaker(position, "ab" * 32) for position in range(5000)]
    assert drawn == [tie_breaker(position, "ab" * 32) for position in range(5000)]
    assert kstest(drawn, "uniform").pvalue > 0.01
    assert len(set(drawn)) == 5000
    assert tie_breaker(1, "ab" * 32) != tie_breaker(1, "cd" * 32)
    assert tie_breaker(1, "") == 0.0975387865784706  # another value would change every rerun


def test_groups_are_ranked_by_a_corrected_rank_test() -> None:
    generator = np.random.default_rng(7)
    calibration = np.sort(generator.normal(size=400))
    named = {
        "high": generator.normal(2, size=60),
        "same": generator.normal(size=90),
        "low": generator.normal(-2, size=50),
    }
    names = [name for name, values in named.items() for _ in values]
    values = np.concatenate(list(named.values()))
    groups = rank_groups(names, values, values > 1.5, calibration)
    assert [group.name for group in groups] == ["high", "same", "low"]
    for group in groups:
        own = named[group.name]
        test = mannwhitneyu(own, calibration, alternative="greater", method="asymptotic")
        assert group.p_value == pytest.approx(min(1, 3 * test.pvalue), rel=1e-9)
        assert (group.rows, group.flagged_share) == (len(own), pytest.approx(np.mean(own > 1.5)))
        at_least = np.mean([(1 + np.sum(calibration >= score)) / 401 for score in own])
        assert group.mean_p_value == pytest.approx(at_least)
    assert groups[0].p_value < 1e-6
    assert groups[1].p_value > 0.01


def test_one_row_gives_no_small_p_value() -> None:
    flagged = np.array([True])
    (group,) = rank_groups(["a"], np.array([np.inf]), flagged, np.arange(1000.0))
    assert 0.04 < group.p_value < 0.05
    assert rank_groups([], np.empty(0), flagged[:0], np.arange(9.0)) == ()
