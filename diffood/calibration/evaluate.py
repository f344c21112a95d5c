"""Evaluates a calibrated bundle: scores an in-distribution test set and OOD sets, and measures detection."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from diffood.calibration.metrics.evaluation import IndEvaluation, evaluate_ind, evaluate_scores
from diffood.calibration.metrics.groups import Group
from diffood.calibration.request import EngineRequest
from diffood.calibration.scored_files import IND, ScoredFiles, require_finite, score_sources
from diffood.calibration.seen import load_seen
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.inputs.reading import DEFAULT_RULES, InputRules
from diffood.runtime.progress import ShowProgress, hide_progress
from diffood.runtime.results import ImageScore

SeeSetScore = Callable[[str, str, ImageScore], None]  # called with set name, id and result of every scored file


@dataclass(frozen=True)
class EvaluateRequest:
    """What `diffood evaluate` is asked for.

    Attributes:
        bundle: The bundle's folder.
        ind: Inputs that name fresh in-distribution test images.
        ood: Inputs of each OOD set, by its name; none: only false alarms are measured.
        groups: "near" or "far" of each OOD set that is either.
        engine: The engine to score with.
        rules: Columns of tables, and which URLs are opened.

    """

    bundle: Path
    ind: tuple[str, ...]
    ood: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, Group] = field(default_factory=dict)
    engine: EngineRequest = field(default_factory=EngineRequest)
    rules: InputRules = DEFAULT_RULES

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs of all sets."""
        return (*self.ind, *(name for inputs in self.ood.values() for name in inputs))


@dataclass(frozen=True)
class Evaluated:
    """Scored test sets of a calibrated bundle.

    Attributes:
        detector: What scored them.
        calibration: What they are judged by.
        files: By set, IND first, then the OOD sets in the order given.
        evaluation: An `Evaluation` where an OOD set was given.

    """

    detector: Detector
    calibration: Calibration
    files: Mapping[str, ScoredFiles]
    evaluation: IndEvaluation


def evaluate_bundle(
    request: EvaluateRequest, show_progress: ShowProgress = hide_progress, see: SeeSetScore | None = None
) -> Evaluated:
    """Score test sets with a calibrated bundle and compare them. `see` sees every score.

    Raises CalibrationError where the bundle is not calibrated for the engine and for values that are not finite,
    UsageError for a set without a usable image and for inputs that name nothing.
    """
    engine = request.engine
    detector = Detector.open(
        request.bundle, backend=engine.backend, precision=engine.precision, batch=engine.batch, threads=engine.threads
    )
    calibration = detector.calibration()
    sources = {name: list_inputs(inputs, request.rules) for name, inputs in {IND: request.ind, **request.ood}.items()}
    files = {}
    with show_progress("evaluating", sum(map(len, sources.values()))) as advance:
        for name, listed in sources.items():
            see_in_set = partial(see, name) if see else None
            files[name] = score_sources(detector, listed, progress=advance, see=see_in_set)
            require_finite(files[name], f"{name!r}", "false alarms and detection cannot be measured")
    ood = {name: scored for name, scored in files.items() if name != IND}
    names = detector.bundle.manifest.class_names
    seen = load_seen(detector.bundle, calibration)
    if not ood:
        return Evaluated(detector, calibration, files, evaluate_ind(calibration, files[IND], names, seen=seen))
    evaluation = evaluate_scores(calibration, files[IND], ood, request.groups, names, seen)
    return Evaluated(detector, calibration, files, evaluation)
