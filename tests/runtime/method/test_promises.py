"""Laws of the test of a promise: it takes what was fitted with scipy, and nothing next to it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaincc

from diffood.calibration.promises.thresholds import fit_threshold, images_required
from diffood.errors import CalibrationError
from diffood.runtime.method.promises import CLOSE, Demand, Method

METHODS: list[Method] = ["pac", "conformal", "quantile"]


def is_tie(m: int, n: int, alpha: float, delta: float | None) -> bool:
    return math.isclose(betaincc(m + 1, n - m, alpha), delta or 0.0, rel_tol=2 * CLOSE)


shares = st.floats(0.001, 0.999) | st.sampled_from([0.01, 0.05, 0.059, 0.07, 0.1, 0.35, 0.5, 0.9])


@given(st.integers(1, 3000), shares, shares, st.sampled_from(METHODS))
def test_what_was_fitted_is_confirmed_and_its_neighbours_are_not(
    n: int, alpha: float, confidence: float, method: Method
) -> None:
    scores = np.arange(n, dtype=np.float64)
    try:
        fitted = fit_threshold(scores, alpha, confidence, method)
    except CalibrationError:
        return  # too few
    if method == "pac" and any(is_tie(m, n, alpha, fitted.delta) for m in range(fitted.allowed_above, n)[:2]):
        return  # two numbers are right to rounding
    demand, ascending = Demand(method, alpha, fitted.delta), scores.tolist()
    assert math.isclose(
        demand.bound(ascending, fitted.value, fitted.allowed_above), fitted.bound, rel_tol=CLOSE, abs_tol=1e-15
    )
    for m in (fitted.allowed_above - 1, fitted.allowed_above + 1):
        with pytest.raises(ValueError, match="allowed_above"):
            demand.bound(ascending, n - 1.0 - m, m)
    for threshold in (math.nextafter(fitted.value, -1), fitted.value + 1, 1e308):
        with pytest.raises(ValueError, match="threshold"):
            demand.bound(ascending, threshold, fitted.allowed_above)


@given(shares, st.floats(0.5, 0.9999), st.sampled_from(METHODS[:2]))
def test_the_fewest_images_are_confirmed_and_their_neighbours_are_not(
    alpha: float, confidence: float, method: Method
) -> None:
    needed = images_required(alpha, confidence, method)
    if method == "pac" and any(is_tie(0, n, alpha, 1 - confidence) for n in (needed - 1, needed, needed + 1) if n > 0):
        return
    demand = Demand(method, alpha, 1 - confidence if method == "pac" else None)
    assert demand.needs(needed) or needed == 0  # conformal, alpha of nearly 1: one score is always needed
    assert not any(demand.needs(n) for n in (needed - 1, needed + 1) if n > 0)


def test_sums_of_many_terms_are_exact() -> None:
    for n, alpha in ((10_000, 0.05), (1_000_000, 0.001), (1_000_000, 0.3)):
        fitted = fit_threshold(np.arange(n, dtype=np.float64), alpha, 0.999, "pac")
        found = Demand("pac", alpha, fitted.delta).bound(range(n), fitted.value, fitted.allowed_above)
        assert math.isclose(found, fitted.bound, rel_tol=CLOSE)
