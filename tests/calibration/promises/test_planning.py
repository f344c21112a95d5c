"""Plans of a calibration: their numbers equal those of the calibration itself, and are the smallest that work."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffood.calibration.calibrate import require_enough
from diffood.calibration.fusing.split import fitted_count
from diffood.calibration.promises.per_class import confidence_per_promise
from diffood.calibration.promises.planning import plan_images
from diffood.calibration.promises.thresholds import Method, fit_threshold, images_required, promise
from diffood.errors import CalibrationError, UsageError

methods = st.sampled_from(["pac", "conformal", "quantile"])
promising = st.sampled_from(["pac", "conformal"])
shares = st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.3, 0.9])
confidences = st.sampled_from([0.5, 0.9, 0.95, 0.99])


@given(methods, shares, confidences, st.booleans())
def test_the_total_is_enough_and_one_less_is_not(method: Method, alpha: float, confidence: float, fused: bool) -> None:
    planned = plan_images(alpha, confidence, method, fused=fused)
    require_enough(planned.total, alpha, confidence, method, fused=fused)
    with pytest.raises(CalibrationError, match=str(planned.total)):
        require_enough(planned.total - 1, alpha, confidence, method, fused=fused)
    assert planned.total - planned.fitted >= planned.needed
    first, less = (plan_images(alpha, confidence, method, fused=fused, counts=[n]).outlooks for n in
                   (planned.total, max(planned.total - 1, 1)))  # fmt: skip
    assert first[0].bound is not None
    assert less[0].bound is None or planned.total == 1


@given(methods, shares, confidences, st.booleans(), st.integers(1, 5000))
def test_an_outlook_equals_the_fitted_threshold(
    method: Method, alpha: float, confidence: float, fused: bool, n: int
) -> None:
    planned = plan_images(alpha, confidence, method, fused=fused, counts=[n])
    (row,) = planned.outlooks
    assert (row.n, row.calibrated) == (n, n - fitted_count(n) if fused else n)
    if n < planned.total:
        assert row.allowed_above is row.bound is None
        return
    threshold = fit_threshold(np.arange(float(row.calibrated)), alpha, confidence, method)
    assert (row.allowed_above, row.bound) == (threshold.allowed_above, threshold.bound)


@given(methods, shares, confidences)
def test_the_number_required_is_the_smallest_with_a_promise(method: Method, alpha: float, confidence: float) -> None:
    needed = images_required(alpha, confidence, method)
    assert promise(needed, alpha, confidence, method).allowed_above >= 0
    with pytest.raises(CalibrationError):
        promise(needed - 1, alpha, confidence, method)


@given(promising, shares, confidences, st.integers(1, 1000))
def test_classes_share_the_confidence(method: Method, alpha: float, confidence: float, classes: int) -> None:
    planned = plan_images(alpha, confidence, method, fused=False, classes=classes)
    assert planned.needed == images_required(alpha, confidence_per_promise(confidence, classes), method)
    assert planned.needed >= images_required(alpha, confidence, method)


def test_numbers_by_hand() -> None:
    planned = plan_images(0.001, 0.95, "pac", fused=True)
    assert (planned.needed, planned.fitted, planned.total) == (2995, 1000, 3995)
    assert plan_images(0.05, 0.95, "conformal", fused=True).total == 58  # 20 to fit on, though 19 others would do
    rows = plan_images(0.05, 0.95, "pac", fused=False, counts=[10_000, 58, 1000]).outlooks
    assert [(row.n, row.allowed_above) for row in rows] == [(10_000, 463), (58, None), (1000, 38)]
    assert plan_images(0.05, 0.95, "pac", fused=False).as_json()["outlooks"][0]["calibrated"] == 59


def test_unusable_values_are_refused() -> None:
    with pytest.raises(UsageError, match="0 images cannot be calibrated on"):
        plan_images(0.05, 0.95, "pac", fused=False, counts=[100, 0])
    with pytest.raises(UsageError, match="'quantile' has none"):
        plan_images(0.05, 0.95, "quantile", fused=False, classes=3)
    with pytest.raises(UsageError, match="alpha is 0"):
        plan_images(0, 0.95, "pac", fused=False)
