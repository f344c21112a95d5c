"""Fits a bundle's threshold on in-distribution files. The statistics are in `thresholds`."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.calibration.thresholds import Method, Threshold, conformal_required, fit_threshold, pac_required
from diffood.errors import CalibrationError
from diffood.runtime.decision import Calibration
from diffood.runtime.detector import Detector
from diffood.runtime.images import DEFAULT_LIMITS, Limits
from diffood.runtime.serving.pipeline import Progress, score_files
from diffood.runtime.serving.sources import Source


@dataclass(frozen=True)
class ScoredFiles:
    """Scores float64 [N] and predicted classes int64 [N] of the files that could be used.

    set_aside: (id, reason) of the others.
    repeated: how many files have the bytes of an earlier one.
    """

    scores: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    set_aside: tuple[tuple[str, str], ...]
    repeated: int


def score_folder(
    detector: Detector, sources: Iterable[Source], limits: Limits = DEFAULT_LIMITS, progress: Progress | None = None
) -> ScoredFiles:
    """Score files and keep the numbers only."""
    scores, predicted, set_aside, hashes = [], [], [], []
    for outcome in score_files(detector, sources, limits, progress):
        if outcome.result is None:
            set_aside.append((outcome.source.id, outcome.loaded.error))
        else:
            scores.append(outcome.result.score)
            predicted.append(outcome.result.predicted)
            hashes.append(outcome.loaded.sha256)
    return ScoredFiles(
        np.array(scores, np.float64),
        np.array(predicted, np.int64),
        tuple(set_aside),
        repeated=len(hashes) - len(set(hashes)),
    )


def require_enough(count: int, alpha: float, confidence: float, method: Method) -> None:
    """Refuse, before any image is scored, a folder that cannot be enough. Raises CalibrationError with the number."""
    if method == "quantile":
        return
    needed = pac_required(alpha, 1 - confidence) if method == "pac" else conformal_required(alpha)
    if count < needed:
        raise CalibrationError(
            f"{count} images are too few for {method} at {alpha:.3%} false alarms"
            f"{f' with {confidence:.1%} confidence' if method == 'pac' else ''}: at least {needed} are needed. "
            "Add images, or accept a higher --fpr."
        )


def calibrate(detector: Detector, files: ScoredFiles, alpha: float, confidence: float, method: Method) -> Calibration:
    """Fit the threshold on scored in-distribution files. Raises CalibrationError, UsageError as fit_threshold does."""
    threshold = fit_threshold(files.scores, alpha, confidence, method)
    return Calibration(
        method=threshold.method,
        alpha=threshold.alpha,
        delta=threshold.delta,
        n=threshold.n,
        allowed_above=threshold.allowed_above,
        threshold=threshold.value,
        guarantee=guarantee(threshold),
        set_aside=len(files.set_aside),
        fingerprint=detector.fingerprint,
        scores=np.sort(files.scores).tolist(),
    )


def guarantee(threshold: Threshold) -> str:
    """What the threshold promises, in one sentence a user can repeat."""
    if threshold.method == "pac":
        assert threshold.delta is not None
        return (
            f"With {1 - threshold.delta:.1%} confidence, at most {threshold.bound:.2%} of in-distribution images like "
            f"these {threshold.n} are flagged (asked for: {threshold.alpha:.2%})."
        )
    if threshold.method == "conformal":
        return (
            f"On average over calibration sets of {threshold.n} images, {threshold.bound:.2%} of in-distribution "
            f"images are flagged (asked for: {threshold.alpha:.2%}); this one threshold may do worse."
        )
    return (
        f"{threshold.bound:.2%} of the {threshold.n} calibration images lie above; this guarantees nothing for others."
    )
