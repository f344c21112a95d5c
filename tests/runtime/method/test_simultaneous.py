"""The bounds of every threshold at once: exact where they can be computed by hand, and kept in simulated draws."""

import math

import numpy as np
import pytest
from scipy.special import betainccinv
from scipy.stats import binomtest

from diffood.runtime.method.simultaneous import all_below, beta_quantiles, simultaneous_band


def test_probabilities_by_hand(subtests: pytest.Subtests) -> None:
    for ranks, bounds, n, expected in [
        ([1], [0.3], 1, 0.3),
        ([1, 2], [0.3, 0.8], 2, 2 * 0.3 * 0.8 - 0.3**2),
        ([1], [0.3], 2, 1 - 0.7**2),
        ([2], [0.8], 2, 0.8**2),
        ([1, 2], [0.0, 1.0], 2, 0.0),
        ([1, 2, 3], [1.0, 1.0, 1.0], 3, 1.0),
        ([1], [0.01], 300, 1 - 0.99**300),
    ]:
        with subtests.test(ranks=ranks, bounds=bounds, n=n):
            found = all_below(n, np.array(ranks), np.array(bounds))
            assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_quantiles_are_those_of_scipy(subtests: pytest.Subtests) -> None:
    for n, risk in [(1, 0.05), (2, 0.5), (59, 1e-9), (1000, 0.002), (20_000, 0.05)]:
        with subtests.test(n=n, risk=risk):
            above = np.unique(np.linspace(0, n - 1, 40).astype(int))
            found = beta_quantiles(above + 1, n - above, risk)
            assert found == pytest.approx(betainccinv(above + 1, n - above, risk), rel=1e-9)


def test_the_bounds_hold_together_as_often_as_promised(subtests: pytest.Subtests) -> None:
    draw = np.random.default_rng(0)
    for n, delta in [(1, 0.05), (30, 0.3), (300, 0.05), (1000, 0.1)]:
        with subtests.test(n=n, delta=delta):
            band = simultaneous_band(n, delta)
            bounds = np.array([band.bound(above) for above in range(n)])
            broken = sum(int((np.sort(draw.random((500, n)), 1) > bounds).any(1).sum()) for _ in range(6))
            assert binomtest(broken, 3000, delta).pvalue > 1e-4, "neither too often nor much too seldom"
            assert all_below(n, np.arange(1, n + 1), bounds) == pytest.approx(1 - delta, rel=1e-6)


def test_shape_of_the_bounds() -> None:
    band = simultaneous_band(1000, 0.05)
    bounds = np.array([band.bound(above) for above in range(1001)])
    assert (np.diff(bounds) >= 0).all()
    assert bounds[-1] == 1
    massart = np.arange(1000) / 1000 + math.sqrt(math.log(1 / 0.05) / 2000)
    assert (bounds[:150] < massart[:150]).all()
    assert 0.05 / 31 < band.level < 0.05 / 29
    for rate in (0.001, 0.0063, 0.0064, 0.05, 0.5, 0.9999):
        allowed = band.allowed(rate)
        if allowed is None:
            assert bounds[0] > rate
        else:
            assert bounds[allowed] <= rate < bounds[allowed + 1]
    assert simultaneous_band(200_000, 0.05).bound(10_000) < 0.0525
