"""The staged rule as one scalar: the same verdicts as stage by stage, and the promise holds whatever the limits."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from diffood.calibration.staged import StageLimits, keeps_limits, staged_scalar, stopped_at
from diffood.calibration.thresholds import fit_threshold, pac_required
from diffood.errors import UsageError

FloatArray = npt.NDArray[np.float64]

DRAWS = 2000
ALPHA, DELTA = 0.05, 0.1
DOUBT = 1e-4
"""A simulation counts as against a promise when chance alone would give it this rarely."""

limit = st.integers(-4, 4).map(float) | st.sampled_from([-math.inf, math.inf])
two_limits = st.builds(
    lambda rows: StageLimits(tuple(low for low, _ in rows), tuple(high for _, high in rows)),
    st.lists(st.tuples(limit, limit), min_size=2, max_size=2),
)
three_scores = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-6, 6).map(float))


def staged_rule(scores: FloatArray, limits: StageLimits, tau: float) -> tuple[bool, int]:
    """Verdict and last stage of one image, stage by stage."""
    for stage, (low, high) in enumerate(zip(limits.low, limits.high, strict=True)):
        if scores[stage] <= low:
            return False, stage
        if scores[stage] > high:
            return True, stage
    return bool(scores[-1] > tau), len(limits.low)


@given(scores=three_scores, limits=two_limits, tau=st.integers(-8, 8).map(float))
def test_the_scalar_gives_the_verdicts_of_the_rule(scores: FloatArray, limits: StageLimits, tau: float) -> None:
    verdicts, stages = zip(*(staged_rule(row, limits, tau) for row in scores), strict=True)
    assert tuple(staged_scalar(scores, limits) > tau) == verdicts
    assert tuple(stopped_at(scores, limits)) == stages


@given(scores=three_scores, limits=two_limits)
def test_scores_never_computed_do_not_count(scores: FloatArray, limits: StageLimits) -> None:
    never = np.arange(3) > stopped_at(scores, limits)[:, None]
    np.testing.assert_array_equal(staged_scalar(np.where(never, np.nan, scores), limits), staged_scalar(scores, limits))


@given(scores=three_scores, limits=two_limits)
def test_the_scalar_is_finite_and_fits_a_threshold(scores: FloatArray, limits: StageLimits) -> None:
    scalar = staged_scalar(scores, limits)
    assert np.all(np.isfinite(scalar))
    fit_threshold(scalar, 0.5, 0.5, "quantile")


def test_images_that_stop_early_are_ordered_by_how_far_beyond_the_limit() -> None:
    limits = StageLimits((1.0,), (3.0,))
    scores = np.array([[-5.0, 0.0], [0.9, 0.0], [2.0, -1e99], [2.0, 7.0], [3.1, 0.0], [9.0, 0.0], [1e308, 0.0]])
    scalar = staged_scalar(scores, limits)
    assert np.all(np.diff(scalar) > 0)
    assert [keeps_limits(value) for value in scalar] == [False, False, True, True, False, False, False]


LIMITS = {
    "sensible": StageLimits((0.0, 0.5), (2.5, 2.5)),
    "none": StageLimits((-math.inf, -math.inf), (math.inf, math.inf)),
    "flag a third at once": StageLimits((-1.0, 0.0), (0.5, 2.0)),
    "flag all": StageLimits((-math.inf, 0.0), (-math.inf, 0.0)),
    "pass nearly all": StageLimits((2.5, 0.0), (3.0, 1.0)),
    "pass all": StageLimits((math.inf, 0.0), (math.inf, 0.0)),
    "upside down": StageLimits((1.0, 1.0), (-1.0, 0.0)),
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_the_pac_promise_holds_for_the_rule_as_a_whole(limits: StageLimits) -> None:
    generator = np.random.default_rng(20261201)
    # Scores of the stages get better and depend on one another; a large sample is the population.
    truth, noise = generator.normal(size=(40_000, 1)), generator.normal(size=(40_000, 3))
    population = np.sort(staged_scalar(truth + noise * [1.0, 0.6, 0.3], limits))
    # The smallest number with which three may lie above: there the risk is delta, with little to spare.
    allowed, kept, kept_looser = 3, 0, 0
    n = pac_required(ALPHA, DELTA, allowed)
    for _ in range(DRAWS):
        scalar = generator.choice(population, n)
        fitted = fit_threshold(scalar, ALPHA, 1 - DELTA, "pac").value
        looser = np.sort(scalar)[n - 2 - allowed]
        kept += population.size - np.searchsorted(population, fitted, "right") <= ALPHA * population.size
        kept_looser += population.size - np.searchsorted(population, looser, "right") <= ALPHA * population.size
    assert stats.binomtest(kept, DRAWS, 1 - DELTA, alternative="less").pvalue > DOUBT
    # And it is no looser than that: one image more above would break it, unless infinite limits make all images tie.
    tied = population[0] == population[-1]
    assert tied or stats.binomtest(kept_looser, DRAWS, 1 - DELTA, alternative="less").pvalue < DOUBT


def test_limits_that_flag_too_much_or_pass_too_much_are_told() -> None:
    generator = np.random.default_rng(8)
    scores = generator.normal(size=(300, 3))
    kept = {
        name: keeps_limits(fit_threshold(staged_scalar(scores, limits), ALPHA, 1 - DELTA, "pac").value)
        for name, limits in LIMITS.items()
    }
    assert kept["sensible"]
    assert kept["none"]
    assert not (kept["flag all"] or kept["pass all"] or kept["flag a third at once"] or kept["pass nearly all"])


def test_unusable_limits_and_scores_are_refused() -> None:
    limits = StageLimits((0.0,), (1.0,))
    with pytest.raises(UsageError, match="1 low limits and 2 high limits"):
        StageLimits((0.0,), (1.0, 2.0))
    with pytest.raises(UsageError, match="A stage limit is NaN"):
        StageLimits((math.nan,), (1.0,))
    with pytest.raises(UsageError, match=r"shape \[4\]; expected \[n, 2\]"):
        staged_scalar(np.zeros(4), limits)
    with pytest.raises(UsageError, match="hold nan for image 1 at stage 1"):
        staged_scalar(np.array([[-1.0, math.nan], [0.5, math.nan]]), limits)
    with pytest.raises(UsageError, match="hold inf for image 0 at stage 0"):
        staged_scalar(np.array([[math.inf, 1.0]]), limits)
    with pytest.raises(UsageError, match=r"hold 1e\+100 for image 0 at stage 1"):
        staged_scalar(np.array([[0.5, 1e100]]), limits)
