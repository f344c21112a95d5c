"""Bounds of a rate hold at every time at once, also where hits are drawn with another probability."""

import numpy as np
import pytest
from scipy.stats import binom

from diffood.calibration.feedback.sequences import Draws, bound_above, bound_below, first_refuted, log_wealth

RISK = 0.05


def drawn(draw: np.random.Generator, rate: np.ndarray, ratio: float) -> Draws:
    """Outcomes of sequences whose rates are given, as they are among drawn rows."""
    return Draws(draw.random(rate.shape) < rate * ratio / (rate * ratio + 1 - rate), ratio)


@pytest.mark.parametrize("ratio", [1.0, 20.0, 0.1])
def test_a_true_claim_is_refuted_at_any_time_with_the_risk_at_most(ratio: float) -> None:
    """1,000 sequences of 300 draws at the claimed rate, and below it now and then, whatever was drawn before."""
    draw = np.random.default_rng(1)
    allowed = binom.ppf(0.999, 1000, RISK)
    for claimed in (0.05, 0.5):
        rate = np.full((1000, 300), claimed) * np.where(np.arange(300) % 100 < 90, 1, 0.5)
        for draws, claim in ((drawn(draw, rate, ratio), claimed), (drawn(draw, 1 - rate / 2, ratio), 1 - claimed / 4)):
            ever = log_wealth(draws, np.array([claim]))[-1, :, 0] >= -np.log(RISK)
            assert ever.sum() <= allowed


def test_a_mean_of_wealth_is_a_bet_that_is_fair() -> None:
    """Over all outcomes of six draws the wealth at the end has the mean 1, weighted by their probabilities."""
    outcomes = (np.arange(64)[:, None] >> np.arange(6)) & 1 == 1
    for claimed, ratio in ((0.05, 20.0), (0.3, 1.0), (0.9, 0.25)):
        hit = claimed * ratio / (claimed * ratio + 1 - claimed)
        probability = np.where(outcomes, hit, 1 - hit).prod(1)
        first = log_wealth(Draws(outcomes[:, :1], ratio), np.array([claimed]))[0, :, 0]
        assert (probability * np.exp(first)).sum() >= 1 - 1e-9  # the highest so far
        last = log_wealth(Draws(outcomes, ratio), np.array([claimed]))[-1, :, 0]
        assert (probability * (np.exp(last) >= 4)).sum() <= 1 / 4


def test_bounds_close_in_on_the_rate_from_both_sides() -> None:
    draw = np.random.default_rng(4)
    for rate, ratio in ((0.05, 20.0), (0.05, 1.0), (0.4, 0.5)):
        draws = drawn(draw, np.full(600, rate), ratio)
        low, high = bound_below(draws, RISK / 2), bound_above(draws, RISK / 2)
        assert low < rate < high < 3 * rate
        assert low > rate / 3
        assert first_refuted(draws, low * 0.9, RISK / 2) is not None
        assert first_refuted(draws, low * 1.1, RISK / 2) is None


def test_without_draws_nothing_is_known() -> None:
    nothing = Draws(np.empty(0, np.bool_))
    assert (bound_below(nothing, RISK), bound_above(nothing, RISK), first_refuted(nothing, 0.5, RISK)) == (0, 1, None)


def test_a_rate_that_rises_late_is_noticed() -> None:
    """1,000 draws at half the claimed rate, then three times it: noticed within 250 draws in most of 50 sequences."""
    rate = np.concatenate([np.full((50, 1000), 0.025), np.full((50, 250), 0.15)], axis=1)
    wealth = log_wealth(drawn(np.random.default_rng(3), rate, 20.0), np.array([0.05]))[:, :, 0]
    assert (wealth[1000] < -np.log(RISK)).mean() > 0.9
    assert (wealth[-1] >= -np.log(RISK)).mean() > 0.9
