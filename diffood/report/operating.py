"""Operating points: what thresholds for other false-alarm rates would do on the same test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffood.calibration.checked import FloatArray
from diffood.calibration.metrics.rates import FalseAlarms, false_alarms
from diffood.calibration.promises.thresholds import fit_threshold, images_required
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.method.promises import as_written

ALPHAS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2)  # false-alarm rates whose thresholds are compared


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold for another false-alarm rate would do.

    Attributes:
        alpha: False alarm rate requested.
        chosen: Whether it is the rate of this calibration.
        needed: Calibration images needed, where there are too few; then nothing else is known.
        threshold: As it would have been fitted.
        alarms: On the test images.
        detected: Share by set, in the order of the sets.
    """

    alpha: float
    chosen: bool
    needed: int | None = None
    threshold: float | None = None
    alarms: FalseAlarms | None = None
    detected: tuple[float, ...] = ()


def operating_points(
    calibration: Calibration, ind: FloatArray, ood: Sequence[FloatArray]
) -> tuple[OperatingPoint, ...]:
    """What thresholds for ALPHAS and the calibration's own rate, fitted as it was, do on test scores."""
    delta = calibration.delta
    confidence = 0.95 if delta is None else float(1 - as_written(delta))  # not used by a method without delta
    points = []
    for alpha in sorted({*ALPHAS, calibration.alpha}):
        chosen = alpha == calibration.alpha
        needed = images_required(alpha, confidence, calibration.method)
        if calibration.n < needed:
            points.append(OperatingPoint(alpha, chosen, needed))
            continue
        value = fit_threshold(np.array(calibration.scores), alpha, confidence, calibration.method).value
        detected = tuple(float(np.mean(scores > value)) for scores in ood)
        points.append(OperatingPoint(alpha, chosen, None, value, false_alarms(ind, value), detected))
    return tuple(points)
