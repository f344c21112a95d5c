"""Calibrates a bundle on in-distribution files. The statistics are in `thresholds`, the fusion's fit in `fusing`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffood.calibration.fusing import (
    FittedFusion,
    SetAside,
    describe_set_aside,
    fit_fusion,
    require_enough_fused,
    split_sources,
)
from diffood.calibration.thresholds import Method, Threshold, conformal_required, fit_threshold, pac_required
from diffood.errors import CalibrationError
from diffood.runtime.decision import Calibration, save_calibration
from diffood.runtime.detector import Detector, ImageScore
from diffood.runtime.fusion import save_bank
from diffood.runtime.images import DEFAULT_LIMITS, Limits
from diffood.runtime.serving.pipeline import Progress, score_files
from diffood.runtime.serving.sources import Source

See = Callable[[str, ImageScore], None]  # called with the id and the outcome of every scored file


@dataclass(frozen=True)
class ScoredFiles:
    """Scores float64 [N], witnesses float64 [N, W] and predicted classes int64 [N] of the files that could be used.

    ids: of these files [N]. set_aside: the others. repeated: how many files have the bytes of an earlier one.
    """

    scores: npt.NDArray[np.float64]
    witnesses: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    set_aside: SetAside
    repeated: int
    ids: tuple[str, ...]


def score_folder(
    detector: Detector,
    sources: Iterable[Source],
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    see: See | None = None,
) -> ScoredFiles:
    """Score files and keep the numbers only; `see` may keep more of each."""
    scores, witnesses, predicted, set_aside, hashes, ids = [], [], [], [], [], []
    for outcome in score_files(detector, sources, limits, progress):
        if outcome.result is None:
            set_aside.append((outcome.source.id, outcome.loaded.error))
        else:
            if see:
                see(outcome.source.id, outcome.result)
            scores.append(outcome.result.score)
            witnesses.append(outcome.result.witnesses)
            predicted.append(outcome.result.evidence.predicted)
            hashes.append(outcome.loaded.sha256)
            ids.append(outcome.source.id)
    return ScoredFiles(
        np.array(scores, np.float64),
        np.array(witnesses, np.float64).reshape(-1, len(detector.plan.witnesses)),
        np.array(predicted, np.int64),
        tuple(set_aside),
        repeated=len(hashes) - len(set(hashes)),
        ids=tuple(ids),
    )


def require_enough(count: int, alpha: float, confidence: float, method: Method, *, fused: bool) -> None:
    """Refuse, before any image is scored, a folder that cannot be enough. Raises CalibrationError with the number."""
    if method == "quantile":
        needed = 1
    else:
        needed = pac_required(alpha, 1 - confidence) if method == "pac" else conformal_required(alpha)
    if fused:
        require_enough_fused(count, needed)
    elif count < needed:
        raise CalibrationError(
            f"{count} images are too few for {method} at {alpha:.3%} false alarms"
            f"{f' with {confidence:.1%} confidence' if method == 'pac' else ''}: at least {needed} are needed. "
            "Add images, or accept a higher --fpr."
        )


@dataclass(frozen=True)
class Calibrated:
    """A calibration not yet saved. files: what was calibrated on; fitted: the fusion, if the plan has one."""

    calibration: Calibration
    detector: Detector
    files: ScoredFiles
    fitted: FittedFusion | None

    @property
    def set_aside(self) -> SetAside:
        """Every file that could not be used."""
        return (*(self.fitted.set_aside if self.fitted else ()), *self.files.set_aside)

    def save(self) -> Path:
        """Write the calibration, and before it the bank it needs, into the bundle; returns the calibration's path."""
        bundle = self.detector.bundle
        if self.fitted and (entry := self.fitted.fusion.record.bank):
            save_bank(bundle, entry, self.fitted.bank)
        return save_calibration(bundle, self.calibration)


def calibrate_files(
    detector: Detector,
    sources: Sequence[Source],
    alpha: float,
    confidence: float,
    method: Method,
    progress: Progress | None = None,
    see: See | None = None,
) -> Calibrated:
    """Fit the fusion of the detector's plan, if it has one, on a part of the files, and the threshold on the others.

    `see` sees the files the threshold is fitted on. Raises CalibrationError for too few images, UsageError as
    fit_threshold does.
    """
    require_enough(len(sources), alpha, confidence, method, fused=detector.plan.fused)
    fitted, rest = None, list(sources)
    if detector.plan.fused:
        part, rest = split_sources(sources)
        fitted = fit_fusion(detector, part, progress=progress)
        detector = detector.fused(fitted.fusion)
    files = score_folder(detector, rest, progress=progress, see=see)
    return Calibrated(calibrate(detector, files, alpha, confidence, method, fitted), detector, files, fitted)


def calibrate(
    detector: Detector,
    files: ScoredFiles,
    alpha: float,
    confidence: float,
    method: Method,
    fitted: FittedFusion | None = None,
) -> Calibration:
    """Fit the threshold on scored in-distribution files. Raises CalibrationError, UsageError as fit_threshold does."""
    try:
        threshold = fit_threshold(files.scores, alpha, confidence, method)
    except CalibrationError as error:
        raise CalibrationError(f"{error} {describe_set_aside(files.set_aside)}".rstrip()) from None
    return Calibration(
        method=threshold.method,
        alpha=threshold.alpha,
        delta=threshold.delta,
        n=threshold.n,
        allowed_above=threshold.allowed_above,
        threshold=threshold.value,
        guarantee=guarantee(threshold),
        set_aside=len(files.set_aside) + (len(fitted.set_aside) if fitted else 0),
        fingerprint=detector.fingerprint,
        scores=np.sort(files.scores).tolist(),
        fusion=detector.fusion.record if detector.fusion else None,
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
