"""What a calibration promises at the thresholds in force: those it was fitted with, or others asked for when serving.

A calibration promises something for its own threshold alone. Another one is covered by the bounds that hold for every
threshold at once (`method.simultaneous`), which follow from the calibration's scores: nothing is fitted again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from diffood.errors import CalibrationError, UsageError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.feedback import find_withdrawn
from diffood.runtime.bundle.guarantees import describe_band
from diffood.runtime.method.promises import Demand
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.simultaneous import Band, simultaneous_band
from diffood.runtime.records import Text

DEFAULT_DELTA = 0.05
"""Of the bounds for every threshold, where the calibration's method has no confidence of its own."""


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold asked for when serving, in place of the calibrated ones; none of the two: the calibrated ones.

    Attributes:
        threshold: Scores above it are flagged, whatever the predicted class.
        fpr: The rate whose bound no threshold may exceed, in (0, 1).
    """

    threshold: float | None = None
    fpr: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.fpr is not None:
            raise UsageError("--threshold and --fpr both choose a threshold: give one of them.")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UsageError(f"--threshold is {self.threshold}; it must be a finite number.")
        if self.fpr is not None and not 0 < self.fpr < 1:
            raise UsageError(f"--fpr is {self.fpr}; it must be a share strictly between 0 and 1, for example 0.05.")

    def __bool__(self) -> bool:
        return self.threshold is not None or self.fpr is not None


AS_CALIBRATED = ThresholdChoice()


@dataclass(frozen=True)
class CellBound:
    """The threshold and the bound of the images of one predicted class.

    Attributes:
        name: Of the class.
        threshold: Scores above it are flagged.
        n: Calibration images.
        bound: Of the false-alarm rate; None where the images were too few for a promise of their own.
    """

    name: Text
    threshold: float
    n: int
    bound: float | None


@dataclass(frozen=True)
class DetectionBound:
    """What is flagged of OOD images like given examples; nothing is said of others.

    Attributes:
        statement: The promise as a sentence.
        images: Examples.
        flagged: Of these.
        bound: Of the share flagged, from below.
        confidence: Of that.
    """

    statement: Text
    images: int
    flagged: int
    bound: float
    confidence: float


@dataclass(frozen=True)
class Certificate:
    """What holds for the verdicts of a detector, on in-distribution images like the calibration's.

    Attributes:
        kind: "pac", "conformal" or "quantile" for the calibrated thresholds; "every threshold" for others.
        statement: The promise as a sentence.
        threshold: Of all images.
        fpr: The false-alarm rate asked for; None where a threshold was given.
        bound: Of the false-alarm rate of all images together: on average over calibrations for "conformal"; the share
            that was seen, which promises nothing, for "quantile".
        confidence: That all bounds hold together; None for "conformal" and "quantile".
        n: Calibration images.
        above: How many of their scores may lie above the threshold.
        classes: Of predicted classes, where they have thresholds of their own.
        detection: Of OOD images like the examples that the calibration had; None without examples, and at other
            thresholds than the calibrated ones.
        withdrawn: Why nothing of this is promised any more, since people's answers contradict it; "" otherwise.
    """

    kind: Literal["pac", "conformal", "quantile", "every threshold"]
    statement: Text
    threshold: float
    fpr: float | None
    bound: float
    confidence: float | None
    n: int
    above: int
    classes: tuple[CellBound, ...] = ()
    detection: DetectionBound | None = None
    withdrawn: Text = ""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds in force: of all images, and by predicted class, of the classes that have their own."""

    overall: float
    own: Mapping[int, float]


def thresholds_of(calibration: Calibration, choice: ThresholdChoice, classes: int) -> Thresholds:
    """The thresholds of a choice. classes: that the classifier has.

    Raises CalibrationError where no threshold keeps the rate that is asked for.
    """
    if choice.threshold is not None:
        return Thresholds(choice.threshold, {})
    if choice.fpr is None:
        return Thresholds(calibration.threshold, calibration.own_thresholds)
    own = {k: _allowed(scores, calibration, choice.fpr, classes) for k, scores in _own_scores(calibration).items()}
    overall = _allowed(np.array(calibration.scores), calibration, choice.fpr, classes)
    if overall is None:
        lowest = math.ceil(1e4 * band_of(calibration, classes).bounds[0]) / 1e4  # as printed it can be asked for
        raise CalibrationError(
            f"--fpr is {choice.fpr:g}, and with {calibration.n} calibration images no threshold keeps it: the lowest "
            f"rate that holds for every threshold at once is {lowest:.2%}. Ask for that, or calibrate on more "
            "images."
        )
    return Thresholds(overall, {k: value for k, value in own.items() if value is not None})


def certify(calibration: Calibration, choice: ThresholdChoice, names: Sequence[str]) -> Certificate:
    """What holds at the thresholds of a choice. names: of the classes. Raises as `thresholds_of`."""
    found = thresholds_of(calibration, choice, len(names))
    if not choice:
        return _certify_calibrated(calibration, names)
    band, scores = band_of(calibration, len(names)), np.array(calibration.scores)
    above = _above(scores, found.overall)
    bound = band.bound(above)
    cells = _bounded_cells(calibration, found, names)
    if choice.fpr is not None and cells:
        bound = max((cell.bound for cell in cells if cell.bound), default=0.0)
        bound = min(1.0, bound + (band.bound(above) if len(cells) < len(names) else 0.0))
    confidence = 1 - _delta(calibration)
    statement = describe_band(confidence, found.overall, bound, calibration.n, len(cells), choice.fpr)
    return Certificate(
        "every threshold", statement, found.overall, choice.fpr, bound, confidence, calibration.n, above, cells
    )


def certificate_of(bundle: Bundle, calibration: Calibration, choice: ThresholdChoice) -> Certificate:
    """What holds for the verdicts of a bundle. Raises as `thresholds_of` and `find_withdrawn` do."""
    found = certify(calibration, choice, bundle.manifest.class_names)
    return replace(found, withdrawn=find_withdrawn(bundle, calibration))


def band_of(calibration: Calibration, classes: int) -> Band:
    """The bounds of all images for every threshold; with per-class thresholds at their share of delta."""
    return simultaneous_band(calibration.n, _share(calibration, classes))


def _certify_calibrated(calibration: Calibration, names: Sequence[str]) -> Certificate:
    per_class, delta = calibration.per_class, calibration.delta
    demand = Demand(calibration.method, calibration.alpha, delta and delta / _promises(calibration, len(names)))
    bound = demand.bound(calibration.scores, calibration.threshold, calibration.allowed_above)
    own = per_class.thresholds if per_class else ()
    return Certificate(
        kind=calibration.method,
        statement=calibration.guarantee,
        threshold=calibration.threshold,
        fpr=calibration.alpha,
        bound=per_class.overall_bound if per_class else bound,
        confidence=1 - delta if delta is not None else None,
        n=calibration.n,
        above=calibration.allowed_above,
        classes=tuple(CellBound(names[k.predicted], k.threshold, k.n, k.bound) for k in own),
        detection=_detection(calibration),
    )


def _detection(calibration: Calibration) -> DetectionBound | None:
    found = calibration.detection
    if found is None:
        return None
    return DetectionBound(found.statement, found.images, found.flagged, found.bound, 1 - found.delta)


def _bounded_cells(calibration: Calibration, found: Thresholds, names: Sequence[str]) -> tuple[CellBound, ...]:
    """The classes that have images enough for thresholds of their own, at the thresholds in force."""
    cells = []
    for k, scores in _own_scores(calibration).items():
        threshold = found.own.get(k, found.overall)
        band = simultaneous_band(len(scores), _share(calibration, len(names)))
        if k in found.own or not found.own:
            cells.append(CellBound(names[k], threshold, len(scores), band.bound(_above(scores, threshold))))
    return tuple(cells)


def _own_scores(calibration: Calibration) -> dict[int, Float]:
    """Sorted scores by predicted class, of the classes that have their own threshold."""
    if calibration.per_class is None:
        return {}
    scores, classes = np.array(calibration.scores), np.array(calibration.per_class.classes)
    return {k: scores[classes == k] for k in calibration.own_thresholds}


def _allowed(scores: Float, calibration: Calibration, fpr: float, classes: int) -> float | None:
    above = simultaneous_band(len(scores), _share(calibration, classes)).allowed(fpr)
    return None if above is None else float(scores[len(scores) - 1 - above])


def _above(scores: Float, threshold: float) -> int:
    return int(len(scores) - np.searchsorted(scores, threshold, "right"))


def _delta(calibration: Calibration) -> float:
    return calibration.delta or DEFAULT_DELTA


def _promises(calibration: Calibration, classes: int) -> int:
    return classes + 1 if calibration.per_class else 1


def _share(calibration: Calibration, classes: int) -> float:
    return _delta(calibration) / _promises(calibration, classes)
