"""A new calibration from labelled rows, valid although labels were asked for by the old threshold.

Rows above the old threshold were drawn with another probability than those below, so the in-distribution rows among the
labelled are no sample of in-distribution images: a threshold fitted on them as they are lies too low or too high. Both
probabilities are known. Each labelled row is kept with the smaller one divided by its own, by a number that is a
function of the row (von Neumann 1951, rejection sampling): each in-distribution row is then in the sample with the same
probability, whatever its score, and the exact promises of `promises` hold for it. Weights would use every label, and
would hold only approximately.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffood.calibration.calibrate import CalibrateRequest, as_stored
from diffood.calibration.checked import require_share
from diffood.calibration.promises.detection import bound_detection
from diffood.calibration.promises.guarantees import guarantee, guarantee_per_class
from diffood.calibration.promises.per_class import confidence_per_promise, fit_per_class
from diffood.calibration.promises.thresholds import fit_threshold
from diffood.calibration.replacing import require_overwrite
from diffood.errors import CalibrationError
from diffood.runtime.assembly.files import write_detectors
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import Calibration, current_name, load_calibration, save_calibration
from diffood.runtime.bundle.detection import DetectionRecord
from diffood.runtime.bundle.feedback import FeedbackRecord, LabelTask, find_feedback
from diffood.runtime.decision import DecisionRule
from diffood.runtime.printable import shell_word


@dataclass(frozen=True)
class Recalibrated:
    """A calibration that was fitted on labelled rows.

    Attributes:
        calibration: As it is stored in the bundle.
        path: Of it.
        labelled: In-distribution rows among the labelled.
        old_threshold: Of the calibration it replaces.
        replaced: Name under which that one is kept.
    """

    calibration: Calibration
    path: Path
    labelled: int
    old_threshold: float
    replaced: str | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON: the calibration without its scores, and what it was fitted on."""
        return {
            **self.calibration.summary(),
            "labelled": self.labelled,
            "old_threshold": self.old_threshold,
            "replaced": self.replaced,
        }


def calibrate_from_feedback(request: CalibrateRequest) -> Recalibrated:
    """Fit and store a threshold on the rows that feedback says are in-distribution; scores nothing again.

    Args:
        request: Without images; plan and engine are those of the calibration that judged the rows.

    Raises:
        CalibrationError: There is no feedback, or too few in-distribution rows; the message has the numbers.
        UsageError: A value cannot be used, or the calibration may not be replaced.
        BundleError: The bundle or the record is damaged.
    """
    require_share("--fpr", request.fpr)
    require_share("--confidence", request.confidence)
    bundle = open_bundle(request.bundle)
    old = load_calibration(bundle)
    record = find_feedback(bundle, old)
    if record is None or not record.answered:
        raise CalibrationError(
            f"There are no labels on rows that this calibration judged: give them with `diffood feedback "
            f"{shell_word(bundle.path)} ROWS --labels FILE`."
        )
    require_overwrite(bundle, overwrite=request.overwrite)
    fitted = fit_on_feedback(old, record, request, bundle.manifest.class_names)
    before = current_name(bundle)
    path = save_calibration(bundle, fitted)
    write_detectors(bundle)
    labelled = sum(task.answer == "ind" for task in record.answered)
    return Recalibrated(fitted, path, labelled, old.threshold, before)


def fit_on_feedback(
    old: Calibration, record: FeedbackRecord, request: CalibrateRequest, names: tuple[str, ...]
) -> Calibration:
    """The calibration that replaces `old`; raises CalibrationError for too few rows. names: of the classes."""
    labelled = [task for task in record.answered if task.answer == "ind"]
    sample = [task for task in record.answered if record.design.thins(task.id, task.sha256, flagged=task.flagged)]
    kept = [task for task in sample if task.answer == "ind"]
    if broken := [task.id for task in kept if task.score is None]:
        raise CalibrationError(
            f"The models gave no finite score for {len(broken)} in-distribution rows, the first is {broken[0]!r}: no "
            "threshold can be fitted on them. Check the bundle's precision and the models."
        )
    kept.sort(key=lambda task: task.score or 0.0)
    scores = np.array([task.score for task in kept], np.float64)
    classes = np.array([task.predicted_class for task in kept], np.int64)
    per_promise = confidence_per_promise(request.confidence, len(names) if request.per_class else None)
    by_class = None
    try:
        found = fit_threshold(scores, request.fpr, per_promise, request.method)
        if request.per_class:
            by_class = fit_per_class(scores, classes, len(names), request.fpr, request.confidence, request.method)
    except CalibrationError as error:
        raise CalibrationError(
            f"{error} Of {len(labelled)} rows that are labelled in-distribution, {len(kept)} make a uniform sample; "
            "label more rows."
        ) from None
    changed = {
        "method": found.method,
        "alpha": found.alpha,
        "delta": by_class.delta if by_class else found.delta,
        "n": found.n,
        "allowed_above": found.allowed_above,
        "threshold": found.value,
        "guarantee": guarantee_per_class(by_class, names) if by_class else guarantee(found),
        "set_aside": 0,
        "scores": scores.tolist(),
        "images": tuple(sorted({*(old.images or ()), *(task.sha256 for task in kept)})),
        "per_class": as_stored(by_class, classes).model_dump() if by_class else None,
        "detection": None,  # the old one counts examples above the old threshold
    }
    fitted = Calibration.model_validate({**old.model_dump(), **changed})
    missed = [task for task in sample if task.answer == "ood"]
    return fitted.model_copy(update={"detection": _detection(fitted, missed, request.confidence)}) if missed else fitted


def _detection(fitted: Calibration, found: Sequence[LabelTask], confidence: float) -> DetectionRecord:
    """What the new thresholds detect of OOD images like the served ones, of which these are a uniform sample."""
    scores = np.array([np.inf if task.score is None else task.score for task in found])
    predicted = np.array([task.predicted_class for task in found], np.int64)
    flagged = DecisionRule.of(fitted).decide(scores, predicted).is_ood
    return bound_detection(int(flagged.sum()), len(found), confidence)
