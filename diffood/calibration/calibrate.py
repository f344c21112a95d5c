"""Calibrates a bundle on in-distribution files. The statistics are in `thresholds`, the fusion's fit in `fusing`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.checked import require_share
from diffood.calibration.fusing.fusing import (
    FittedFusion,
    Parts,
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
from diffood.calibration.promises.planning import ImagePlan, plan_images
from diffood.calibration.promises.thresholds import Method, fit_threshold, images_required
from diffood.calibration.request import EngineRequest, PlanRequest, ShowProgress, hide_progress, open_detector
from diffood.calibration.scored_files import ScoredFiles, SeeScore, SetAside, score_sources
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.bundle.bundle import CALIBRATION, open_bundle
from diffood.runtime.bundle.calibration import Calibration, ClassThreshold, ClassThresholds, save_calibration
from diffood.runtime.bundle.fusion import save_bank
from diffood.runtime.bundle.tuning import load_tuned
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.items import Item
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.pipeline import Progress

SUSPECTS = 5  # calibration images named to the user, to be looked at


@dataclass(frozen=True)
class CalibrateRequest:
    """What `diffood calibrate` is asked for.

    Attributes:
        bundle: The bundle's folder.
        images: Inputs that name in-distribution images neither model was trained on.
        fpr: False-alarm rate that must not be exceeded, in (0, 1).
        confidence: Confidence of that for "pac", in (0, 1).
        method: See `Threshold` for what each promises.
        per_class: Whether each predicted class with enough images gets its own threshold.
        plan: The plan to calibrate.
        engine: The engine to calibrate for.

    """

    bundle: Path
    images: tuple[str, ...]
    fpr: float = 0.05
    confidence: float = 0.95
    method: Method = "pac"
    per_class: bool = False
    plan: PlanRequest = field(default_factory=PlanRequest)
    engine: EngineRequest = field(default_factory=EngineRequest)


def plan_calibration(request: CalibrateRequest, counts: Sequence[int] = ()) -> ImagePlan:
    """How many images a calibration takes, and what `counts` images, and those of the request, would give.

    Scores nothing. Raises UsageError for unusable values and for images that cannot be found.
    """
    _require_shares(request)
    bundle = open_bundle(request.bundle)
    found = [len(list_inputs(request.images))] if request.images else []
    return plan_images(
        request.fpr,
        request.confidence,
        request.method,
        fused=request.plan.plan_of(bundle).fused,
        classes=len(bundle.manifest.class_names) if request.per_class else None,
        counts=[*counts, *found],
    )


def calibrate_bundle(
    request: CalibrateRequest, show_progress: ShowProgress = hide_progress, see: SeeScore | None = None
) -> "Calibrated":
    """Calibrate a bundle and store the calibration in it. `see` sees the images the threshold is fitted on.

    Raises UsageError for unusable values, CalibrationError for too few images, BundleError for a damaged bundle.
    """
    _require_shares(request)
    if not request.images:
        raise UsageError(
            "Give in-distribution images with --images DIR, or --plan-only to ask how many are needed before."
        )
    sources = list_inputs(request.images)
    bundle = open_bundle(request.bundle)
    detector = open_detector(bundle, request.plan.plan_of(bundle), request.engine)
    session = detector.session  # named while it works: hours may be spent on an engine that was not meant
    with show_progress(f"calibrating {session.precision} on {session.backend}", len(sources)) as advance:
        done = calibrate_files(
            detector,
            sources,
            request.fpr,
            request.confidence,
            request.method,
            advance,
            see,
            per_class=request.per_class,
        )
    done.save()
    return done


def _require_shares(request: CalibrateRequest) -> None:
    require_share("--fpr", request.fpr)
    require_share("--confidence", request.confidence)


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
    """A calibration and what it was fitted on. files: what was calibrated on; fitted: the fusion, if the plan has one.

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
    def path(self) -> Path:
        """Of the calibration in the bundle."""
        return self.detector.bundle.path / CALIBRATION

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
    see: SeeScore | None = None,
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
    files = score_sources(detector, parts.calibrate, progress=progress, see=see)
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
