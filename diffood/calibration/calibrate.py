"""Calibrates a bundle on in-distribution files. The statistics are in `promises`, the fit of a fusion in `fusing`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.checked import require_share
from diffood.calibration.fusing.fusion import FittedFusion, fit_fusion
from diffood.calibration.fusing.split import SplitFiles, leave_out, require_enough_fused, split_sources
from diffood.calibration.predictions import LogitCheck, Predictions, count_predictions
from diffood.calibration.promises.contamination import (
    Contamination,
    Suspect,
    assess_contamination,
    most_suspicious,
    usable_shares,
)
from diffood.calibration.promises.detection import DetectionGoal, judge_examples
from diffood.calibration.promises.guarantees import guarantee, guarantee_per_class
from diffood.calibration.promises.per_class import PerClassThresholds, confidence_per_promise, fit_per_class
from diffood.calibration.promises.planning import ImagePlan, plan_images
from diffood.calibration.promises.thresholds import fit_threshold, images_required
from diffood.calibration.replacing import require_overwrite
from diffood.calibration.request import EngineRequest, PlanRequest, open_detector
from diffood.calibration.scored_files import (
    ScoredFiles,
    SeeScore,
    SetAside,
    describe_set_aside,
    require_finite,
    score_sources,
)
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.assembly.files import write_detectors
from diffood.runtime.bundle.bundle import CALIBRATION, open_bundle
from diffood.runtime.bundle.calibration import (
    Calibration,
    ClassThreshold,
    ClassThresholds,
    current_name,
    list_kept,
    save_calibration,
)
from diffood.runtime.bundle.fusion import save_bank
from diffood.runtime.bundle.trained import load_trained
from diffood.runtime.bundle.tuning import load_tuned
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.items import Item
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.inputs.reading import DEFAULT_RULES, InputRules
from diffood.runtime.method.promises import Method
from diffood.runtime.progress import Progress, ShowProgress, hide_progress
from diffood.runtime.writable import require_writable

SUSPECTS = 5  # calibration images that the user is asked to inspect


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
        rules: Columns of tables, and which URLs are opened.
        overwrite: Whether a calibration that the bundle has may be replaced; it is kept.
        ood_examples: Inputs that name OOD images, on which detection is measured; nothing is fitted on them.
        detect: Share of these that should be flagged; None where nothing is asked.

    """

    bundle: Path
    images: tuple[str, ...]
    fpr: float = 0.05
    confidence: float = 0.95
    method: Method = "pac"
    per_class: bool = False
    plan: PlanRequest = field(default_factory=PlanRequest)
    engine: EngineRequest = field(default_factory=EngineRequest)
    rules: InputRules = DEFAULT_RULES
    overwrite: bool = False
    ood_examples: tuple[str, ...] = ()
    detect: float | None = None


def plan_calibration(request: CalibrateRequest, counts: Sequence[int] = ()) -> ImagePlan:
    """How many images a calibration takes, and what `counts` images, and those of the request, would give.

    Scores nothing. Raises UsageError for unusable values and for images that cannot be found.
    """
    _require_shares(request)
    bundle = open_bundle(request.bundle)
    found = [len(list_inputs(request.images, request.rules))] if request.images else []
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

    Raises UsageError for unusable values and for a bundle that is calibrated and not to be overwritten,
    CalibrationError for too few images, BundleError for a damaged bundle.
    """
    _require_shares(request)
    if not request.images:
        raise UsageError(
            "Give in-distribution images with --images DIR, or --plan-only to ask how many are needed before."
        )
    sources = list_inputs(request.images, request.rules)
    examples = list_inputs(request.ood_examples, request.rules) if request.ood_examples else ()
    bundle = open_bundle(request.bundle)
    require_overwrite(bundle, overwrite=request.overwrite)
    require_writable(bundle.path, "The bundle", folder=True)
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
    if examples:
        with show_progress(f"scoring OOD examples on {session.backend}", len(examples)) as advance:
            ood = score_sources(done.detector, examples, progress=advance)
        found, goal = judge_examples(done.calibration, done.files.scores, ood, request.confidence, request.detect)
        calibration = done.calibration.model_copy(update={"detection": found})
        done = replace(done, calibration=calibration, goal=goal, unusable_examples=ood.set_aside)
    before = current_name(bundle)
    done.save()
    return replace(done, replaced=before if before in list_kept(bundle) else None)


def _require_shares(request: CalibrateRequest) -> None:
    if request.detect is not None:
        require_share("--detect", request.detect)
        if not request.ood_examples:
            raise UsageError("--detect asks about OOD images like given ones: give examples with --ood-examples.")
    require_share("--fpr", request.fpr)
    require_share("--confidence", request.confidence)


def require_enough(
    count: int, alpha: float, confidence: float, method: Method, *, fused: bool, classes: int | None = None
) -> None:
    """Refuse, before any image is scored, too few images; the arguments are those of `plan_images`.

    Raises:
        CalibrationError: The images cannot be enough; the message has the number needed.
        UsageError: Values are unusable.
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
    """A calibration and what it was fitted on.

    Attributes:
        calibration: As it is stored in the bundle.
        detector: What scored the files.
        files: The files the threshold was fitted on, with their scores.
        fitted: The fusion; None where the plan has none.
        contamination: How the threshold of all images would move if some of the files were OOD.
        tuned: Number of files that `diffood tune` had used and that were therefore kept from the threshold.
        trained: Number of files that the UNet was trained on and that were therefore left out.
        replaced: Name under which the calibration that the bundle had is kept; None if there was none.
        predictions: What the classifier predicts on the files.
        goal: Whether the share of OOD examples that was asked for is detected; None where nothing was asked.
        unusable_examples: OOD examples that could not be used, as (id, reason).
    """

    calibration: Calibration
    detector: Detector
    files: ScoredFiles
    fitted: FittedFusion | None
    contamination: tuple[Contamination, ...]
    predictions: Predictions
    tuned: int = 0
    trained: int = 0
    replaced: str | None = None
    goal: DetectionGoal | None = None
    unusable_examples: SetAside = ()

    @property
    def path(self) -> Path:
        """Of the calibration in the bundle."""
        return self.detector.bundle.path / CALIBRATION

    @property
    def set_aside(self) -> SetAside:
        """All files that could not be used, as (id, reason)."""
        return (*(self.fitted.set_aside if self.fitted else ()), *self.files.set_aside, *self.unusable_examples)

    @property
    def conversions(self) -> Counter[str]:
        """Number of files by kind of change while they were read, those that the fusion was fitted on included."""
        return self.files.conversions + (self.fitted.conversions if self.fitted else Counter())

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """The calibration images with the highest scores, the highest first."""
        files = self.files
        chosen = most_suspicious(files.scores, min(SUSPECTS, files.scores.size))
        return tuple(Suspect(files.ids[k], float(files.scores[k]), int(files.predicted[k])) for k in chosen)

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON: the calibration without its scores, contamination and the most suspicious images."""
        return {
            **self.calibration.summary(),
            "contamination": [asdict(row) for row in self.contamination],
            "most_suspicious": [asdict(suspect) for suspect in self.suspects],
            "tuned": self.tuned,
            "trained": self.trained,
            "conversions": self.conversions,
            "predictions": self.predictions.as_json(),
            "replaced": self.replaced,
            "goal": asdict(self.goal) if self.goal else None,
        }

    def save(self) -> Path:
        """Write the calibration into the bundle, after the bank that it needs, and then the detector files.

        Returns the path of the calibration.
        """
        bundle = self.detector.bundle
        if self.fitted and (entry := self.fitted.fusion.record.bank):
            save_bank(bundle, entry, self.fitted.bank)
        path = save_calibration(bundle, self.calibration)
        write_detectors(bundle)
        return path


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

    Args:
        detector: What scores the files.
        sources: In-distribution files that neither model was trained on.
        alpha: Requested false-alarm rate, in (0, 1).
        confidence: Requested confidence, in (0, 1).
        method: See `Threshold`.
        progress: Called with the number of files done since the last call.
        see: Called with every score the threshold is fitted on.
        per_class: Whether each predicted class with enough images gets its own threshold.

    Raises:
        CalibrationError: Too few images, or the classifier does not tell them apart.
        UsageError: Values are unusable.
    """
    classes = len(detector.bundle.manifest.class_names) if per_class else None
    fused = detector.plan.fused
    sources, trained = leave_out(sources, load_trained(detector.bundle))
    try:
        require_enough(len(sources), alpha, confidence, method, fused=fused, classes=classes)
    except CalibrationError as error:
        raise CalibrationError(f"{_describe_trained(trained)}{error}") from None
    per_promise = confidence_per_promise(confidence, classes)
    needed = images_required(alpha, per_promise, method)
    parts = split_sources(sources, tuned=load_tuned(detector.bundle), fused=fused)
    _require_untuned(parts, needed)
    fitted, check = None, LogitCheck()
    if fused:
        fitted = fit_fusion(detector, parts.fit, progress=progress, see=lambda evidence: check.see(evidence.logits))
        detector = detector.with_fusion(fitted.fusion)
    files = score_sources(detector, parts.calibrate, progress=progress, see=check.with_scores(see))
    check.require_varied()
    require_finite(files, "calibration", "no threshold can be fitted on them")
    calibration = calibrate(detector, files, alpha, confidence, method, fitted, per_class=per_class)
    shares = usable_shares(files.scores.size, needed)
    rows = assess_contamination(files.scores, alpha, per_promise, method, shares)
    names = detector.bundle.manifest.class_names
    predictions = count_predictions(files.predicted, files.ids, names, check.variation)
    return Calibrated(calibration, detector, files, fitted, rows, predictions, parts.tuned, trained)


def _describe_trained(count: int) -> str:
    """The beginning of a message about too few images; "" where none was left out."""
    return f"The UNet was trained on {count} of these images, so no threshold is fitted on them. " if count else ""


def _require_untuned(parts: SplitFiles, needed: int) -> None:
    """Raise CalibrationError, with the numbers, where the images `tune` has used leave too few for the threshold."""
    left = len(parts.calibrate)
    if parts.tuned and left < needed:
        raise CalibrationError(
            f"{parts.tuned} of these {left + len(parts.fit)} images were used by `diffood tune` to choose the plan, so "
            f"the threshold must not be fitted on them: {left} others are left for it, and {needed} are needed. Add at "
            f"least {needed - left} images that `tune` has not used, or accept a higher --fpr."
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
    """Fit the threshold on scored in-distribution files; with per_class also one per predicted class.

    Raises CalibrationError and UsageError as `fit_threshold` and `fit_per_class` do.
    """
    names = detector.bundle.manifest.class_names
    per_promise = confidence_per_promise(confidence, len(names) if per_class else None)
    try:
        threshold = fit_threshold(files.scores, alpha, per_promise, method)
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
        images=tuple(sorted({*files.sha256, *(fitted.sha256 if fitted else ())})),
        per_class=as_stored(by_class, files.predicted[order]) if by_class else None,
    )


def as_stored(fitted: PerClassThresholds, classes: npt.NDArray[np.int64]) -> ClassThresholds:
    """Per-class thresholds as calibration.json stores them; classes [n] in the order of the sorted scores."""
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
