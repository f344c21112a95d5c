"""Laws of the thresholds: the promise of each method holds in simulation, and one score more breaks it."""

import math
import random
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from draws import at_least, exactly
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from refusals import assert_refused
from scipy import stats

from diffood.calibration.promises.thresholds import (
    Method,
    Threshold,
    conformal_allowed,
    conformal_required,
    fit_threshold,
    pac_allowed,
    pac_required,
)
from diffood.errors import CalibrationError, UsageError

DRAWS = 4000
METHODS: tuple[Method, ...] = ("pac", "conformal", "quantile")
tied_scores = hnp.arrays(np.float64, st.integers(60, 300), elements=st.integers(-8, 8).map(float))
rates = st.integers(50, 900).map(lambda thousandths: thousandths / 1000)
confidences = st.sampled_from([0.5, 0.8, 0.9, 0.95])


def uniform_calibrations(n: int) -> npt.NDArray[np.float64]:
    """Scores [DRAWS, n], uniform, so that the FPR of a threshold v is exactly 1 - v."""
    return np.random.default_rng(20261122).random((DRAWS, n))


def test_pac_allowed_at_five_percent_and_95_confidence() -> None:
    expected = {59: 0, 92: 0, 93: 1, 1000: 38, 10_000: 463}
    assert {n: pac_allowed(n, 0.05, 0.05) for n in expected} == expected


def test_pac_required_at_95_confidence() -> None:
    by_alpha, by_allowed = {0.05: 59, 0.01: 299, 0.001: 2995}, {0: 59, 1: 93, 38: 991}
    assert {alpha: pac_required(alpha, 0.05) for alpha in by_alpha} == by_alpha
    assert {m: pac_required(0.05, 0.05, m) for m in by_allowed} == by_allowed


@given(n=st.integers(60, 10**6), alpha=rates, delta=st.sampled_from([0.001, 0.01, 0.05, 0.5]))
def test_pac_allowed_is_the_largest_that_satisfies_the_beta_law(n: int, alpha: float, delta: float) -> None:
    if n < pac_required(alpha, delta):
        return
    m = pac_allowed(n, alpha, delta)
    assert stats.beta.cdf(alpha, m + 1, n - m) >= 1 - delta - 1e-12
    assert m + 1 == n or stats.beta.cdf(alpha, m + 2, n - m - 1) < 1 - delta + 1e-12


@given(m=st.integers(0, 200), alpha=rates, delta=st.sampled_from([0.001, 0.05, 0.5]))
def test_pac_required_and_pac_allowed_are_inverse(m: int, alpha: float, delta: float) -> None:
    n = pac_required(alpha, delta, m)
    assert pac_allowed(n, alpha, delta) >= m
    if n - 1 >= max(m + 1, pac_required(alpha, delta)):
        assert pac_allowed(n - 1, alpha, delta) < m


def test_pac_keeps_the_digits_of_a_tiny_delta() -> None:
    assert pac_required(0.05, 1e-30) == math.ceil(math.log(1e-30) / math.log1p(-0.05))


def test_conformal_allowed() -> None:
    expected = {
        (19, 0.05): 0,
        (999, 0.05): 49,
        (1000, 0.05): 49,
        (9, 0.1): 0,
        (999, 0.059): 58,
        (149, 0.18): 26,
        (19, 0.95): 18,
    }
    assert {given: conformal_allowed(*given) for given in expected} == expected


def test_conformal_rank_is_exact_where_binary_floats_are_not() -> None:
    naive_is_wrong = 0
    for thousandths in range(1, 1000):
        alpha = thousandths / 1000
        for n in (199, 499, 999, 1000, 4999):
            if n < conformal_required(alpha):
                continue
            exact_rank = n + 1 - (n + 1) * thousandths // 1000
            assert n - conformal_allowed(n, alpha) == exact_rank
            naive_is_wrong += math.ceil((n + 1) * (1 - alpha)) != exact_rank
    assert naive_is_wrong > 0


def test_conformal_required_is_the_smallest_that_works() -> None:
    for alpha, expected in ((0.05, 19), (0.01, 99), (0.001, 999), (0.3, 3), (0.9, 1)):
        assert conformal_required(alpha) == expected
        assert conformal_allowed(expected, alpha) >= 0
        with pytest.raises(CalibrationError):
            conformal_allowed(expected - 1, alpha)


def test_pac_promise_holds_and_one_score_more_breaks_it() -> None:
    for n in (59, 100, 300):
        scores = uniform_calibrations(n)
        values = np.array([fit_threshold(row, 0.05, 0.95, "pac").value for row in scores])
        assert at_least(int(np.count_nonzero(1 - values <= 0.05)), DRAWS, 0.95), n

        m = pac_allowed(n, 0.05, 0.05)
        looser = np.partition(scores, n - 2 - m, axis=1)[:, n - 2 - m]
        assert not at_least(int(np.count_nonzero(1 - looser <= 0.05)), DRAWS, 0.95), n


def test_pac_bound_covers_the_realised_rate_at_exactly_the_confidence() -> None:
    fitted = [fit_threshold(row, 0.05, 0.9, "pac") for row in uniform_calibrations(200)]
    covered = sum(1 - threshold.value <= threshold.bound for threshold in fitted)
    assert exactly(covered, DRAWS, 0.9)


def test_conformal_is_right_on_average_and_no_more() -> None:
    for n in (19, 100, 1000):
        fitted = [fit_threshold(row, 0.05, 0.95, "conformal") for row in uniform_calibrations(n)]
        realised = np.array([1 - threshold.value for threshold in fitted])
        standard_error = realised.std() / math.sqrt(DRAWS)
        assert abs(realised.mean() - fitted[0].bound) < 4 * standard_error, n
        assert fitted[0].bound <= 0.05
        assert np.mean(realised > 0.05) > 0.3, n


def test_quantile_bound_is_mostly_exceeded() -> None:
    fitted = [fit_threshold(row, 0.05, 0.95, "quantile") for row in uniform_calibrations(100)]
    assert fitted[0].bound == 0.05
    assert np.mean([1 - threshold.value > threshold.bound for threshold in fitted]) > 0.5


def test_quantile_counts_exactly_where_binary_floats_do_not() -> None:
    assert fit_threshold(np.arange(180.0), 0.35, 0.95, "quantile").allowed_above == 63


@given(scores=tied_scores, alpha=rates, confidence=confidences, method=st.sampled_from(METHODS))
def test_threshold_flags_at_most_the_allowed_scores(
    scores: npt.NDArray[np.float64], alpha: float, confidence: float, method: Method
) -> None:
    threshold = fit_threshold(scores, alpha, confidence, method)
    assert np.count_nonzero(scores > threshold.value) <= threshold.allowed_above
    assert np.count_nonzero(scores >= threshold.value) > threshold.allowed_above
    assert 0 <= threshold.bound <= alpha * (1 + 1e-9)


@given(scores=tied_scores, alphas=st.tuples(rates, rates), confidence=confidences, method=st.sampled_from(METHODS))
def test_a_higher_rate_never_raises_the_threshold(
    scores: npt.NDArray[np.float64], alphas: tuple[float, float], confidence: float, method: Method
) -> None:
    strict, loose = (fit_threshold(scores, alpha, confidence, method) for alpha in sorted(alphas))
    assert loose.value <= strict.value
    assert loose.allowed_above >= strict.allowed_above


@given(scores=tied_scores, alpha=rates, order=st.randoms(use_true_random=False))
def test_threshold_does_not_depend_on_the_order_of_scores(
    scores: npt.NDArray[np.float64], alpha: float, order: random.Random
) -> None:
    shuffled = scores.tolist()
    order.shuffle(shuffled)
    before = scores.copy()
    assert fit_threshold(np.array(shuffled), alpha, 0.9, "pac") == fit_threshold(scores, alpha, 0.9, "pac")
    np.testing.assert_array_equal(scores, before)


@given(scores=tied_scores, alpha=rates, new=st.integers(-10, 10))
def test_conformal_threshold_flags_exactly_when_the_p_value_is_at_most_alpha(
    scores: npt.NDArray[np.float64], alpha: float, new: int
) -> None:
    rank_of_new = 1 + int(np.count_nonzero(scores >= new))
    p_at_most_alpha = rank_of_new * 1000 <= round(alpha * 1000) * (scores.size + 1)
    assert (new > fit_threshold(scores, alpha, 0.95, "conformal").value) == p_at_most_alpha


def test_a_threshold_has_all_attributes() -> None:
    threshold = fit_threshold(np.arange(1000.0), 0.05, 0.95, "pac")
    assert threshold.bound == pytest.approx(stats.beta.ppf(0.95, 39, 962), rel=1e-12)
    assert threshold == Threshold(961.0, "pac", 0.05, 0.05, 1000, 38, threshold.bound)
    assert fit_threshold(np.arange(1000.0), 0.05, 0.95, "conformal").delta is None


def test_too_few_images_says_how_many_are_given_and_needed() -> None:
    few: list[tuple[int, Method, int]] = [(58, "pac", 59), (0, "pac", 59), (18, "conformal", 19), (0, "quantile", 1)]
    cases = [((n, method), f"{n} given, at least {needed} needed") for n, method, needed in few]
    assert_refused(CalibrationError, cases, lambda case: fit_threshold(np.zeros(case[0]), 0.05, 0.95, case[1]))


def test_scores_that_are_not_finite_are_refused() -> None:
    scores = np.arange(100.0)
    for broken in (math.nan, math.inf, -math.inf):
        scores[[7, 9]] = broken
        cases = [(method, f"2 of 100 .* {broken} at position 7") for method in METHODS]
        assert_refused(CalibrationError, cases, partial(fit_threshold, scores, 0.05, 0.95))


def test_shares_outside_zero_and_one_are_refused() -> None:
    def refuse(name: str, act: Callable[[float], object]) -> None:
        assert_refused(UsageError, [(value, f"{name} is") for value in (0.0, 1.0, -0.1, 5.0, math.nan)], act)

    scores = np.arange(100.0)
    refuse("alpha", lambda value: fit_threshold(scores, value, 0.95, "quantile"))
    refuse("confidence", lambda value: fit_threshold(scores, 0.05, value, "conformal"))
    refuse("delta", lambda value: pac_allowed(100, 0.05, value))
    refuse("alpha", lambda value: conformal_allowed(100, value))


def test_unknown_method_and_wrong_shape_are_refused() -> None:
    with pytest.raises(UsageError, match="'median'"):
        fit_threshold(np.arange(100.0), 0.05, 0.95, "median")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"\[10, 10\]"):
        fit_threshold(np.zeros((10, 10)), 0.05, 0.95, "pac")
