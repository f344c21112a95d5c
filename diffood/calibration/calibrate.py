"""Calibrates a bundle on in-distribution files. The statistics are in `thresholds`, the fusion's fit in `fusing`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.fusing.fusing import (
    FittedFusion,
    Parts,
    SetAside,
    describe_set_aside,
    fit_fusion,
    require_enough_fused,
    split_sources,
)
from diffood.calibration.promises.contamination import (
    Contamination,
    Suspect,
    askable_shares,
    contamination,
    most_suspicious,
)
from diffood.calibration.promises.guarantees import guarantee, guarantee_per_class
from diffood.calibration.promises.per_class import PerClass, confidence_of_each, fit_per_class
from diffood.calibration.promises.planning import plan_images
from diffood.calibration.promises.thresholds import Method, fit_threshold, images_required
from diffood.errors import CalibrationError
from diffood.runtime.bundle.calibration import Calibration, ClassThreshold, ClassThresholds, save_calibration
from diffood.runtime.bundle.fusion import save_bank
from diffood.runtime.bundle.tuning import load_tuned
from diffood.runtime.detector import Detector, ImageScore
from diffood.runtime.images.decode import DEFAULT_LIMITS, Limits
from diffood.runtime.inputs.items import Item
from diffood.runtime.pipeline import Progress, score_files

See = Callable[[str, ImageScore], None]  # called with the id and the outcome of every scored file
SUSPECTS = 5  # calibration images named to the user, to be looked at


@dataclass(frozen=True)
class ScoredFiles:
    """Scores float64 [N], witnesses float64 [N, W] and predicted classes int64 [N] of the files that could be used.

    evaluations int64 [N]: of the UNet, spent on each. ids: of these files [N]. set_aside: the others. repeated: how
    many files have the bytes of an earlier one.
    """

    scores: npt.NDArray[np.float64]
    witnesses: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    evaluations: npt.NDArray[np.int64]
    set_aside: SetAside
    repeated: int
    ids: tuple[str, ...]


def score_folder(
    detector: Detector,
    sources: Iterable[Item],
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    see: See | None = None,
) -> ScoredFiles:
    """Score files and keep the numbers only; `see` may keep more of each."""
    scores, witnesses, predicted, evaluations, set_aside, hashes, ids = [], [], [], [], [], [], []
    for outcome in score_files(detector, sources, limits, progress):
        if outcome.result is None:
            set_aside.append((outcome.source.id, outcome.loaded.error))
        else:
            if see:
                see(outcome.source.id, outcome.result)
            scores.append(outcome.result.score)
            witnesses.append(outcome.result.witnesses)
            predicted.append(outcome.result.evidence.predicted)
            evaluations.append(outcome.result.evaluations)
            hashes.append(outcome.loaded.sha256)
            ids.append(outcome.source.id)
    return ScoredFiles(
        np.array(scores, np.float64),
        np.array(witnesses, np.float64).reshape(-1, len(detector.plan.witnesses)),
        np.array(predicted, np.int64),
        np.array(evaluations, np.int64),
        tuple(set_aside),
        repeated=len(hashes) - len(set(hashes)),
        ids=tuple(ids),
    )


def require_enough(
    count: int, alpha: float, confidence: float, method: Method, *, fused: bool, classes: int | None = None
) -> None:
    """Refuse, before any image is scored, a folder that cannot be enough. Raises CalibrationError with the number.

    classes: as in `plan_images`. Raises UsageError as that does.
    """
    needed = plan_images(alpha, confidence, method, fused=fused, classes=classes).needed
    if fused:
        require_enough_fused(count, needed)
    elif count < needed:
        shared = f" shared by {classes} classes" if classes is not None else ""
        raise CalibrationError(
            f"{count} images are too few for {method} at {alpha:.3%} false alarms"
            f"{f' with {confidence:.1%} confidence{shared}' if method == 'pac' else ''}: at least {needed} are needed. "
            "Add images, or accept a higher --fpr."
        )


@dataclass(frozen=True)
class Calibrated:
    """A calibration not yet saved. files: what was calibrated on; fitted: the fusion, if the plan has one.

    contamination: what follows if some of those images were OOD, of the threshold of all images. tuned: how many of the
    files `diffood tune` had looked at, and which were therefore kept from the threshold.
    """

    calibration: Calibration
    detector: Detector
    files: ScoredFiles
    fitted: FittedFusion | None
    contamination: tuple[Contamination, ...]
    tuned: int = 0

    @property
    def set_aside(self) -> SetAside:
        """Every file that could not be used."""
        return (*(self.fitted.set_aside if self.fitted else ()), *self.files.set_aside)

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """The calibration images that look least like the others, the worst first."""
        files = self.files
        chosen = most_suspicious(files.scores, min(SUSPECTS, files.scores.size))
        return tuple(Suspect(files.ids[k], float(files.scores[k]), int(files.predicted[k])) for k in chosen)

    def as_json(self) -> dict[str, Any]:
        """Plain values: the calibration without its scores, and what was seen besides."""
        return {
            **self.calibration.summary(),
            "contamination": [asdict(row) for row in self.contamination],
            "most_suspicious": [asdict(suspect) for suspect in self.suspects],
            "tuned": self.tuned,
        }

    def save(self) -> Path:
        """Write the calibration, and before it the bank it needs, into the bundle; returns the calibration's path."""
        bundle = self.detector.bundle
        if self.fitted and (entry := self.fitted.fusion.record.bank):
            save_bank(bundle, entry, self.fitted.bank)
        return save_calibration(bundle, self.calibration)


def calibrate_files(
    detector: Detector,
    sources: Sequence[Item],
    alpha: float,
    confidence: float,
    method: Method,
    progress: Progress | None = None,
    see: See | None = None,
    *,
    per_class: bool = False,
) -> Calibrated:
    """Fit the fusion of the detector's plan, if it has one, on a part of the files, and the threshold on the others.

    `see` sees the files the threshold is fitted on; per_class: a threshold for each predicted class too. Raises
    CalibrationError for too few images, UsageError as fit_threshold and, per_class, fit_per_class do.
    """
    classes = len(detector.bundle.manifest.class_names) if per_class else None
    fused = detector.plan.fused
    require_enough(len(sources), alpha, confidence, method, fused=fused, classes=classes)
    of_each = confidence_of_each(confidence, classes)
    needed = images_required(alpha, of_each, method)
    parts = split_sources(sources, tuned=load_tuned(detector.bundle), fused=fused)
    _require_untuned(parts, needed)
    fitted = None
    if fused:
        fitted = fit_fusion(detector, parts.fit, progress=progress)
        detector = detector.with_fusion(fitted.fusion)
    files = score_folder(detector, parts.calibrate, progress=progress, see=see)
    calibration = calibrate(detector, files, alpha, confidence, method, fitted, per_class=per_class)
    shares = askable_shares(files.scores.size, needed)
    rows = contamination(files.scores, alpha, of_each, method, shares)
    return Calibrated(calibration, detector, files, fitted, rows, parts.tuned)


def _require_untuned(parts: Parts, needed: int) -> None:
    """Raise CalibrationError, naming the numbers, where what `tune` looked at leaves too few for the threshold."""
    left = len(parts.calibrate)
    if parts.tuned and left < needed:
        raise CalibrationError(
            f"{parts.tuned} of these {left + len(parts.fit)} images are among those the plan was chosen on by `diffood "
            f"tune`, so the threshold must not be fitted on them: {left} others are left for it, and {needed} are "
            f"needed. Add at least {needed - left} images that `tune` has not seen, or accept a higher --fpr."
        )


def calibrate(
    detector: Detector,
    files: ScoredFiles,
    alpha: float,
    confidence: float,
    method: Method,
    fitted: FittedFusion | None = None,
    *,
    per_class: bool = False,
) -> Calibration:
    """Fit the threshold on scored in-distribution files, and per_class one for each predicted class.

    Raises CalibrationError, UsageError as fit_threshold and fit_per_class do.
    """
    names = detector.bundle.manifest.class_names
    of_each = confidence_of_each(confidence, len(names) if per_class else None)
    try:
        threshold = fit_threshold(files.scores, alpha, of_each, method)
    except CalibrationError as error:
        raise CalibrationError(f"{error} {describe_set_aside(files.set_aside)}".rstrip()) from None
    by_class = None
    if per_class:
        by_class = fit_per_class(files.scores, files.predicted, len(names), alpha, confidence, method)
    order = np.argsort(files.scores, kind="stable")
    return Calibration(
        method=threshold.method,
        alpha=threshold.alpha,
        delta=by_class.delta if by_class else threshold.delta,
        n=threshold.n,
        allowed_above=threshold.allowed_above,
        threshold=threshold.value,
        guarantee=guarantee_per_class(by_class, names) if by_class else guarantee(threshold),
        set_aside=len(files.set_aside) + (len(fitted.set_aside) if fitted else 0),
        fingerprint=detector.fingerprint,
        scores=files.scores[order].tolist(),
        fusion=detector.fusion.record if detector.fusion else None,
        per_class=_as_stored(by_class, files.predicted[order]) if by_class else None,
    )


def _as_stored(fitted: PerClass, classes: npt.NDArray[np.int64]) -> ClassThresholds:
    """What run time needs of thresholds by class; classes [n] in the order of the sorted scores."""
    return ClassThresholds(
        needed=fitted.needed,
        overall_bound=fitted.overall_bound,
        thresholds=tuple(
            ClassThreshold(predicted=k, threshold=own.value, n=own.n, allowed_above=own.allowed_above, bound=own.bound)
            for k, own in enumerate(fitted.own)
            if own is not None
        ),
        classes=classes.tolist(),
    )
