"""What witnesses come to together, once they are standardised: the laws of the sum and of the tail."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_up import calibration_of
from scipy.special import log_ndtr
from scipy.stats import chi2, norm

from diffood.runtime.decision import DecisionRule
from diffood.runtime.method.fusion import combine
from diffood.runtime.method.plan import Combination

Float = npt.NDArray[np.float64]
BOTH: tuple[Combination, ...] = ("sum", "tail")
standardised = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(-30, 30))


def equally(z: Float, how: Combination) -> Float:
    """Standardised witnesses [..., W] combined with equal weights."""
    return combine(z, np.full(z.shape[-1], 1 / z.shape[-1]), how)


@given(standardised)
def test_the_sum_is_the_mean(z: Float) -> None:
    expected = [sum(row) / len(row) for row in z.tolist()]
    assert equally(z, "sum").tolist() == pytest.approx(expected, abs=1e-12)


@given(standardised)
def test_the_tail_is_the_mean_of_minus_the_log_of_the_normal_tail(z: Float) -> None:
    expected = (-np.log(norm.sf(z))).mean(axis=1)  # norm.sf holds its digits to 37 deviations
    assert equally(z, "tail") == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_tail_is_exact_where_the_normal_tail_itself_is_0() -> None:
    z = np.array([-30.0, -8.0, -1e-9, 0.0, 29.999999, 30.0, 30.000001, 100.0, 1e5, 1e150])
    assert combine(z[:, None], np.ones(1), "tail") == pytest.approx(-log_ndtr(-z), rel=1e-13, abs=1e-300)
    assert combine(np.array([[1e200]]), np.ones(1), "tail") == np.inf


@given(standardised)
def test_the_tail_is_fishers_statistic_over_twice_the_number_of_witnesses(z: Float) -> None:
    """So for independent normal witnesses 2W times it is chi-squared with 2W degrees of freedom."""
    count = z.shape[1]
    fisher = -2 * np.log(norm.sf(z)).sum(axis=1)
    assert 2 * count * equally(z, "tail") == pytest.approx(fisher, rel=1e-9, abs=1e-9)


def test_the_tail_of_independent_normal_witnesses_is_chi_squared() -> None:
    z = np.random.default_rng(0).normal(size=(20_000, 4))
    beyond = (8 * equally(z, "tail") > chi2.isf([0.5, 0.1, 0.01], 8)[:, None]).mean(axis=1)
    assert beyond == pytest.approx([0.5, 0.1, 0.01], abs=0.01)


@pytest.mark.parametrize("how", BOTH)
@given(z=standardised, place=st.integers(0, 5), more=st.floats(1e-3, 100))
def test_more_of_any_witness_is_more_suspicious(how: Combination, z: Float, place: int, more: float) -> None:
    raised = z.copy()
    raised[:, place % z.shape[1]] += more
    assert np.all(equally(raised, how) >= equally(z, how))
    if z.min() > -5:  # below, the tail is 1 to float64's last digits
        assert np.all(equally(raised, how) > equally(z, how))


@pytest.mark.parametrize("how", BOTH)
@given(z=standardised, seed=st.integers(0, 99))
def test_the_order_of_the_witnesses_does_not_count(how: Combination, z: Float, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(z.shape[1])
    assert equally(z[:, order], how) == pytest.approx(equally(z, how), rel=1e-12, abs=1e-12)


def test_the_tail_is_right_where_the_probability_is_no_number_any_more() -> None:
    """At 40 deviations it is 1e-350; the first terms of its asymptotic series (Abramowitz and Stegun 26.2.12)."""
    z = 40.0
    series = z**2 / 2 + math.log(z * math.sqrt(2 * math.pi)) - math.log1p(-1 / z**2 + 3 / z**4 - 15 / z**6)
    assert norm.sf(z) == 0
    assert float(equally(np.array([z]), "tail")) == pytest.approx(series, rel=1e-12)
    assert float(equally(np.array([-z]), "tail")) == 0.0
    assert equally(np.array([[1e3], [-1e3]]), "tail") == pytest.approx(
        [5e5 + math.log(1e3 * math.sqrt(2 * math.pi)), 0]
    )


def test_one_sure_witness_is_talked_down_by_the_sum_and_not_by_the_tail() -> None:
    one_sure, all_unsure = np.array([6.0, -1, -1, -1]), np.array([1.5, 1.5, 1.5, 1.5])
    assert equally(one_sure, "sum") < equally(all_unsure, "sum")
    assert equally(one_sure, "tail") > equally(all_unsure, "tail")


def test_a_witness_that_is_no_number_ends_up_flagged(subtests: pytest.Subtests) -> None:
    for how, bad, place in itertools.product(BOTH, [math.nan, math.inf, -math.inf], range(3)):
        with subtests.test(how=how, bad=bad, place=place):
            z = np.full((2, 3), -5.0)  # the others say as loudly as they can that all is well
            z[1, place] = bad
            score = equally(z, how)
            decisions = DecisionRule.of(calibration_of([0.0, 1.0, 2.0], threshold=2.0, alpha=0.5)).decide(
                score, np.zeros(len(score), np.int64)
            )
            assert decisions.is_ood.tolist() == [False, True]
            assert decisions.p_values.tolist() == [1.0 if score[0] <= 0 else 0.75, 0.25]


def test_a_weight_of_nought_leaves_a_witness_out() -> None:
    z = np.random.default_rng(0).normal(size=(50, 3))
    for how in BOTH:
        assert combine(z, np.array([0.5, 0, 0.5]), how) == pytest.approx(equally(z[:, [0, 2]], how))
