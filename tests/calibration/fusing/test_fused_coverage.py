"""The guarantee through a whole fusion, in numbers: fitted on one part, calibrated on the other, many times over.

The statistics alone are proven in test_thresholds.py; here a fault would be one of the split: a fit that uses the
images of the threshold, or numbers of images that do not add up.
"""

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from draws import simulated
from scipy.stats import binom

from diffood.calibration.fusing.split import fitted_count, fused_required
from diffood.calibration.fusing.witnesses import fit_witnesses
from diffood.calibration.promises.thresholds import Method, fit_threshold, pac_allowed, pac_required
from diffood.runtime.bundle.fusion import FusionRecord
from diffood.runtime.method.plan import DEFAULT, Combination

Float = npt.NDArray[np.float64]

ALPHA, DELTA = 0.05, 0.05
FRESH = 12_000  # images on which a draw's false alarms are counted: to 0.002, where draws differ by 0.016
RISK = 0.999  # of the interval of this test's own chance


def witnesses(rng: np.random.Generator, count: int) -> Float:
    """Values [n, W], correlated and with heavy tails: Student's t with 3 degrees of freedom; scales far apart."""
    width = len(DEFAULT.witnesses)
    mixing = np.linalg.cholesky(0.6 * np.ones((width, width)) + 0.4 * np.eye(width)).T
    normal = rng.standard_normal((count, width)) @ mixing
    tails: Float = normal / np.sqrt(rng.chisquare(3, (count, 1)) / 3)
    return np.array([0.3, 0.05, -12.0, -9.0]) + tails * np.array([0.1, 0.01, 3.0, 2.0])


def fuse(values: Float, how: Combination) -> FusionRecord:
    """As fit_fusion, from numbers."""
    fitted = fit_witnesses(dict(zip(DEFAULT.witnesses, values.T, strict=True)), how)
    return FusionRecord(combine=how, witnesses=fitted, n=len(values))


def violated(rng: np.random.Generator, count: int, method: Method, how: Combination) -> bool:
    """Whether one draw of `count` images gives a threshold that flags more than ALPHA of fresh ones."""
    drawn = witnesses(rng, count)
    part, rest = drawn[: fitted_count(count)], drawn[fitted_count(count) :]
    fusion = fuse(part, how)
    threshold = fit_threshold(fusion.score(rest), ALPHA, 1 - DELTA, method)
    return bool((fusion.score(witnesses(rng, FRESH)) > threshold.value).mean() > ALPHA)


@simulated(100, 2000)
@pytest.mark.parametrize("how", ["tail", "sum"])
def test_the_bound_is_broken_in_at_most_delta_of_the_draws(how: Combination, draws: int) -> None:
    """With the fewest images that do, where nothing is to spare: the risk is 0.95^59, 4.85 %."""
    count = fused_required(pac_required(ALPHA, DELTA))
    assert (count, pac_allowed(count - fitted_count(count), ALPHA, DELTA)) == (89, 0)
    risk = (1 - ALPHA) ** (count - fitted_count(count))
    rng = np.random.default_rng(7)
    broken = sum(violated(rng, count, "pac", how) for _ in range(draws))
    assert broken <= binom.isf((1 - RISK) / 2, draws, DELTA)
    low, high = binom.interval(RISK, draws, risk)  # and no less often: the bound is the sharp one
    assert low <= broken <= high


def test_a_threshold_without_a_guarantee_breaks_it_half_of_the_time() -> None:
    """So the count above can fail."""
    rng = np.random.default_rng(8)
    draw = partial(violated, rng, 89, "quantile", "tail")
    assert sum(draw() for _ in range(50)) > 0.3 * 50


@simulated(150, 600)
def test_on_average_a_conformal_threshold_keeps_the_rate(draws: int) -> None:
    rng, rates = np.random.default_rng(9), []
    for _ in range(draws):  # each adds a rate, where above it adds a yes or no
        drawn = witnesses(rng, 89)
        fusion = fuse(drawn[:30], "tail")
        threshold = fit_threshold(fusion.score(drawn[30:]), ALPHA, 0.95, "conformal")
        rates.append((fusion.score(witnesses(rng, 1000)) > threshold.value).mean())
    assert threshold.bound == 3 / 60
    error = np.std(rates) / np.sqrt(draws)
    assert abs(np.mean(rates) - threshold.bound) < 4 * error < 0.2 / np.sqrt(draws)
