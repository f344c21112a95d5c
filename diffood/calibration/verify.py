"""Verifies a bundle on this machine: checks every variant that runs here and compares its verdicts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from diffood.calibration.parity.checks import Check, Outcome, check_contract, check_files, check_golden, subject_of
from diffood.calibration.parity.gate import describe_judgement, judge
from diffood.calibration.parity.served import ServedEngines, list_served
from diffood.calibration.parity.side_by_side import score_side_by_side
from diffood.calibration.scored_files import IND, SetAside
from diffood.errors import BundleError, DeviceError, DiffoodError
from diffood.runtime.assembly.files import refresh_detectors
from diffood.runtime.backends import Backend, BackendChoice
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import Calibration, find_calibration, load_calibrated_fusion
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.bundle.parity import (
    CheckRecord,
    ParityLimits,
    ParityRecord,
    add_checks,
    add_record,
)
from diffood.runtime.detector import DEFAULT_BATCH, Detector
from diffood.runtime.inputs.items import Item
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.inputs.reading import DEFAULT_RULES, InputRules
from diffood.runtime.method.plan import Plan
from diffood.runtime.printable import shell_word
from diffood.runtime.progress import Progress, ShowProgress, hide_progress
from diffood.runtime.sessions.choice import list_candidates
from diffood.runtime.writable import require_writable


@dataclass(frozen=True)
class VerifyRequest:
    """What `diffood verify` is asked for.

    Attributes:
        bundle: The bundle's folder.
        images: Inputs that name in-distribution images to compare verdicts on; none skips the comparison.
        ood: Inputs of OOD sets to compare AUROC on, by name.
        backend: "auto" takes every backend of this machine.
        precisions: Precisions to verify; none: all of the bundle.
        limits: What the parity gate allows.
        batch: Images that the engine works on at once; on a GPU, of every call.
        threads: Threads of the engine, 0 for all cores.
        rules: Columns of tables, and which URLs are opened.

    """

    bundle: Path
    images: tuple[str, ...] = ()
    ood: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    backend: BackendChoice = "auto"
    precisions: tuple[Precision, ...] = ()
    limits: ParityLimits = field(default_factory=ParityLimits)
    batch: int = DEFAULT_BATCH
    threads: int = 0
    rules: InputRules = DEFAULT_RULES


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        checks: All checks, in order.
        records: Judgements of the parity gate.
        set_aside: Images that could not be used, as (id, reason).
        images: Number of images compared on, by set.
        conversions: By set, number of images by kind of change while they were read.
        serves: What serving chooses now; None for a bundle that is not calibrated.
    """

    checks: tuple[Check, ...]
    records: tuple[ParityRecord, ...] = ()
    set_aside: SetAside = ()
    images: Mapping[str, int] = field(default_factory=dict)
    conversions: Mapping[str, Counter[str]] = field(default_factory=dict)
    serves: ServedEngines | None = None

    @property
    def passed(self) -> bool:
        """Whether no check failed; one that could not be made does not count."""
        return all(check.outcome != "failed" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "passed": self.passed,
            "checks": [check.as_json() for check in self.checks],
            "parity": [record.model_dump(mode="json") for record in self.records],
            "set_aside": [list(entry) for entry in self.set_aside],
            "conversions": self.conversions,
            "serves": asdict(self.serves) if self.serves else None,
        }


def verify_bundle(request: VerifyRequest, show_progress: ShowProgress = hide_progress) -> Verification:
    """Check the bundle and every session that can be opened here; judge those that differ from the calibrated one.

    Judgements are stored in the bundle. Raises BundleError where a file is not as it was exported or built,
    UsageError for inputs that name nothing.
    """
    named = {IND: request.images, **request.ood}
    sets = {name: list_inputs(inputs, request.rules) for name, inputs in named.items() if inputs}
    bundle = open_bundle(request.bundle)
    calibration = find_calibration(bundle)
    # without a calibration no fusion is known; the plain plan runs the same graphs
    plan = bundle.plan().plain if calibration is None else calibration.fingerprint.plan
    checks = check_files(bundle)
    fusion = load_calibrated_fusion(bundle, calibration)
    detectors, refused = _open_all(bundle, plan, fusion, request)
    checks += refused
    found = []
    for detector in tuple(detectors):
        try:
            found.append((detector, check_golden(detector), check_contract(detector)))
        except DeviceError as error:  # it was loaded and cannot run: the others are compared without it
            checks.append(Check("engine", subject_of(detector), "failed", str(error)))
            detectors.remove(detector)
    checks += [check for _, *pair in found for check in pair]
    if calibration is None:
        reason = f"not calibrated: run `diffood calibrate {shell_word(request.bundle)} --images DIR` first"
        return Verification((*checks, Check("parity", "", "skipped", reason)))
    parity = _parity(bundle, calibration, fusion, detectors, sets, request, show_progress)
    add_checks(bundle, [_record(detector, check) for detector, *pair in found for check in pair])
    refresh_detectors(bundle)
    known = {(found.session.backend, found.session.precision): found.fingerprint for found in detectors}
    serves = list_served(bundle, calibration, known, request.batch)
    return replace(parity, checks=(*checks, *parity.checks), serves=serves)


def _record(detector: Detector, check: Check) -> CheckRecord:
    return CheckRecord.model_validate(
        {"variant": detector.fingerprint, "what": check.what, "outcome": check.outcome, "detail": check.detail}
    )


def _parity(
    bundle: Bundle,
    calibration: Calibration,
    fusion: Fusion | None,
    detectors: Sequence[Detector],
    sets: Mapping[str, Sequence[Item]],
    request: VerifyRequest,
    show_progress: ShowProgress,
) -> Verification:
    """The judgements alone, or why there are none."""
    if IND not in sets:
        reason = "no images to compare verdicts on: give --images DIR"
        return Verification((Check("parity", "", "skipped", reason),))
    require_writable(bundle.path, "The bundle", folder=True)
    with show_progress("verifying", sum(map(len, sets.values()))) as advance:
        return _judge_all(bundle, calibration, fusion, detectors, sets, request, advance)


def _open_all(
    bundle: Bundle, plan: Plan, fusion: Fusion | None, request: VerifyRequest
) -> tuple[list[Detector], list[Check]]:
    """A detector for every requested engine that runs here, and a check for each that does not."""
    detectors, checks = [], []
    for precision in request.precisions or bundle.precisions:
        candidates = list_candidates(bundle, None, request.backend, precision, request.batch, plan)
        # a backend requested by name must run; "auto" takes those that do
        outcome: Outcome = "skipped" if request.backend == "auto" else "failed"
        checks += [Check("engine", name, outcome, reason) for name, reason in candidates.skipped]
        for candidate in candidates.usable:
            try:
                detectors.append(_open(bundle, plan, fusion, candidate.backend, precision, request))
            except (BundleError, DeviceError) as error:  # it is here and fits, and cannot be loaded
                checks.append(Check("engine", f"{precision} on {candidate.backend}", "failed", str(error)))
    return detectors, checks


def _open(
    bundle: Bundle, plan: Plan, fusion: Fusion | None, backend: Backend, precision: Precision, request: VerifyRequest
) -> Detector:
    return Detector.load(
        bundle,
        plan,
        backend=backend,
        precision=precision,
        batch=request.batch,
        threads=request.threads,
        fusion=fusion,
    )


def _judge_all(
    bundle: Bundle,
    calibration: Calibration,
    fusion: Fusion | None,
    detectors: Sequence[Detector],
    sets: Mapping[str, Sequence[Item]],
    request: VerifyRequest,
    progress: Progress,
) -> Verification:
    """The judgements alone, without the checks before them."""
    reference = _reference(bundle, calibration, fusion, detectors, request)
    if isinstance(reference, Check):
        return Verification((reference,))
    others = [detector for detector in detectors if detector.fingerprint != calibration.fingerprint]
    if not others:
        return Verification((Check("parity", subject_of(reference), "ok", "is what the calibration was fitted on"),))
    scored = score_side_by_side([reference, *others], sets, progress)
    checks, records = [], []
    for detector, run in zip(others, scored.runs[1:], strict=True):
        record = judge(scored.runs[0], run, calibration, request.limits)
        add_record(bundle, record)
        records.append(record)
        checks.append(
            Check("parity", subject_of(detector), "ok" if record.passed else "failed", describe_judgement(record))
        )
    return Verification(tuple(checks), tuple(records), scored.set_aside, scored.images, scored.conversions)


def _reference(
    bundle: Bundle,
    calibration: Calibration,
    fusion: Fusion | None,
    detectors: Sequence[Detector],
    request: VerifyRequest,
) -> Detector | Check:
    """The detector that the calibration was fitted on, or a failed check with the reason why it cannot run here."""
    fitted = calibration.fingerprint
    for detector in detectors:
        if detector.fingerprint == fitted:
            return detector
    subject = f"{fitted.precision} on {fitted.backend}"
    try:
        detector = _open(bundle, fitted.plan, fusion, fitted.backend, fitted.precision, request)
    except DiffoodError as error:
        return Check("parity", subject, "failed", f"what was calibrated cannot run here: {error}")
    if detector.fingerprint != fitted:
        difference = fitted.difference(detector.fingerprint)
        return Check("parity", subject, "failed", f"what was calibrated is not what runs here: {difference}")
    return detector
