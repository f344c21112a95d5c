"""Rules in stages: the vectorised rule equals a loop, and the promise holds whatever the limits."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from draws import at_least, simulated
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffood.calibration.fusing.stages import PASSED, fit_stage, stop_early
from diffood.calibration.promises.thresholds import fit_threshold, pac_required
from diffood.runtime.bundle.fusion import StageRule
from diffood.runtime.method.fusion import FittedWitness, fuse

FloatArray = npt.NDArray[np.float64]

ALPHA, DELTA = 0.05, 0.1

ENERGY = FittedWitness(name="energy", center=0, scale=1, weight=1)


def rule(low: float | None, high: float | None, repeats: int = 1) -> StageRule:
    """One stage's limits; what it combines does not count here."""
    return StageRule(repeats=repeats, witnesses=(ENERGY,), low=low, high=high)


limit = st.integers(-4, 4).map(float) | st.none()
two_rules = st.lists(st.builds(rule, limit, limit), min_size=2, max_size=2)
three_scores = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 30), st.just(3)),
    elements=st.integers(-6, 6).map(float) | st.just(math.nan),
)


def by_hand(scores: FloatArray, rules: list[StageRule]) -> tuple[float, int]:
    """Score and stage of one image, stage by stage."""
    for stage, limits in enumerate(rules):
        if limits.low is not None and scores[stage] <= limits.low:
            return scores[stage], stage
        if limits.high is not None and scores[stage] > limits.high:
            return scores[stage], stage
    return scores[-1], len(rules)


@given(scores=three_scores, rules=two_rules)
def test_vectorised_stages_equal_a_loop_over_stages(scores: FloatArray, rules: list[StageRule]) -> None:
    expected, stages = zip(*(by_hand(row, rules) for row in scores), strict=True)
    found, stage = stop_early(scores, rules)
    np.testing.assert_array_equal(found, expected)
    assert tuple(stage) == stages


@given(scores=three_scores, rules=two_rules)
def test_scores_of_later_stages_are_not_used(scores: FloatArray, rules: list[StageRule]) -> None:
    found, stage = stop_early(scores, rules)
    never = np.arange(3) > stage[:, None]
    again = stop_early(np.where(never, math.nan, scores), rules)
    np.testing.assert_array_equal(again[0], found)
    np.testing.assert_array_equal(again[1], stage)


def test_a_score_that_is_not_finite_ends_nothing_early() -> None:
    found, stage = stop_early(np.array([[math.nan, 2.0]]), [rule(0.0, 0.0)])
    assert (found[0], stage[0]) == (2.0, 1)


RULES = {
    "sensible": [rule(0.0, 2.5), rule(0.5, 2.5)],
    "none": [rule(None, None), rule(None, None)],
    "flag a third at once": [rule(-1.0, 0.5), rule(0.0, 2.0)],
    "end all at once": [rule(100.0, None), rule(0.0, 0.0)],
    "pass nearly all": [rule(2.5, 3.0), rule(0.0, 1.0)],
    "upside down": [rule(1.0, -1.0), rule(1.0, 0.0)],
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_the_pac_promise_holds_for_the_rule_as_a_whole(rules: list[StageRule]) -> None:
    generator = np.random.default_rng(20261201)
    # the scores of later stages are better, and all depend on one another; a large sample is the population
    truth, noise = generator.normal(size=(40_000, 1)), generator.normal(size=(40_000, 3))
    population = np.sort(stop_early(truth + noise * [1.0, 0.6, 0.3], rules)[0])
    # the smallest number of which three may lie above: there the risk is close to delta
    draws, allowed, kept, kept_looser = 2000, 3, 0, 0
    n = pac_required(ALPHA, DELTA, allowed)
    for _ in range(draws):
        scores = generator.choice(population, n)
        fitted = fit_threshold(scores, ALPHA, 1 - DELTA, "pac").value
        looser = np.sort(scores)[n - 2 - allowed]
        kept += population.size - np.searchsorted(population, fitted, "right") <= ALPHA * population.size
        kept_looser += population.size - np.searchsorted(population, looser, "right") <= ALPHA * population.size
    assert at_least(kept, draws, 1 - DELTA)
    assert not at_least(kept_looser, draws, 1 - DELTA)  # one image more above breaks it, so the bound is sharp


@simulated(150, 2000)
def test_the_promise_holds_when_limits_are_fitted_too(draws: int) -> None:
    """As `calibrate` does it: limits from one part of the images, the threshold from the other, in each draw."""
    generator = np.random.default_rng(20261202)
    held = 0
    for _ in range(draws):
        truth, noise = generator.normal(size=(300, 1)), generator.normal(size=(300, 2))
        scores = truth + noise * [1.0, 0.3]
        fitted = scores[:60, 0]
        limits = [rule(float(np.quantile(fitted, PASSED)), float(fitted.max()))]
        threshold = fit_threshold(stop_early(scores[60:], limits)[0], ALPHA, 1 - DELTA, "pac").value
        truth, noise = generator.normal(size=(20_000, 1)), generator.normal(size=(20_000, 2))
        held += (stop_early(truth + noise * [1.0, 0.3], limits)[0] > threshold).mean() <= ALPHA
    assert at_least(held, draws, 1 - DELTA)


@pytest.mark.parametrize(("repeats", "other"), [(0, "logit_norm"), (0, "inside"), (1, "logit_norm")])
def test_limits_are_quantiles_of_the_fitted_scores(repeats: int, other: str) -> None:
    values = np.random.default_rng(1).normal(size=200)
    found = fit_stage(repeats, {"energy": values, other: values**3}, "tail")
    scores = fuse(found.witnesses, "tail", np.stack([values, values**3], axis=1))
    assert found.high == scores.max()
    assert not any(found.high < score for score in scores)
    if repeats or other == "inside":
        assert found.low is not None
        assert (scores <= found.low).mean() == pytest.approx(PASSED, abs=0.01)
    else:
        assert found.low is None  # nothing passes before it was denoised, or looked at inside the classifier
