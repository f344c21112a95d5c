"""Chooses the backend and precision that a bundle runs on here: requested, available, allowed by the calibration."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from diffood.errors import BundleError, CalibrationError, DeviceError, DiffoodError, RefusedEngineError, UsageError
from diffood.runtime.backends import AUTO, Backend, BackendChoice, without_library
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.parity import ParityRecord, load_parity
from diffood.runtime.method.plan import Plan
from diffood.runtime.sessions import SessionRequest
from diffood.runtime.sessions.backends import examine_backend, examine_backends

PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class EngineCandidate:
    """One way to run; `why` explains its position among the candidates."""

    backend: Backend
    precision: Precision
    why: str


def describe_engine(precision: str, backend: str, why: str) -> str:
    """One line that says what runs, and why if that is known."""
    return f"{precision} on {backend}{f': {why}' if why else ''}"


@dataclass(frozen=True)
class EngineCandidates:
    """Ways to run, best first.

    Attributes:
        usable: Those that this machine has.
        skipped: The others, as ("PRECISION on BACKEND", reason).
    """

    usable: tuple[EngineCandidate, ...]
    skipped: tuple[tuple[str, str], ...]


def list_candidates(
    bundle: Bundle,
    calibration: Calibration | None,
    backend: BackendChoice,
    precision: PrecisionChoice | None,
    batch: int,
    plan: Plan,
) -> EngineCandidates:
    """Order the ways to run a plan of this bundle here.

    Args:
        bundle: The bundle.
        calibration: Its calibration, if it has one for the plan.
        backend: "auto": engines before ONNX Runtime, GPU before CPU.
        precision: "auto": the fastest first, as `diffood verify` measured it; the speeds are read from the bundle, so
            the same bundle gives the same choice. None: the calibration's, FP32 without one.
        batch: Images that the engine works on at once; on a GPU, of every call.
        plan: The plan.

    Raises:
        UsageError: The bundle has no graphs in this precision.
    """
    wanted = bundle.precisions if precision == "auto" else (precision or _calibrated_precision(calibration),)
    if missing := set(wanted) - set(bundle.precisions):
        raise UsageError(
            f"{bundle.path} has no {missing.pop()} graphs, only {', '.join(bundle.precisions)}; "
            "add them by `diffood export --bundle` with that --precision."
        )
    usable, skipped = [], []
    for choice in wanted:
        request = SessionRequest(bundle, plan, choice, batch)
        for found in examine_backends(request) if backend == AUTO else [examine_backend(backend, request)]:
            if found.usable:
                usable.append(EngineCandidate(found.backend, choice, found.reason))
            else:
                skipped.append((f"{choice} on {found.backend}", found.reason))
    if precision == "auto":
        usable = list(_fastest_first(bundle, calibration, usable))
    return EngineCandidates(tuple(usable), tuple(skipped))


def _calibrated_precision(calibration: Calibration | None) -> Precision:
    return "fp32" if calibration is None else calibration.fingerprint.precision


def _fastest_first(
    bundle: Bundle, calibration: Calibration | None, usable: list[EngineCandidate]
) -> Iterator[EngineCandidate]:
    """Sorted by measured speed relative to the calibrated variant; those never measured come last, in their order."""
    speedup: dict[tuple[Backend, Precision], float] = {}
    if calibration is not None:
        records = passed_records(bundle, calibration)
        speedup = dict.fromkeys(((record.reference.backend, record.reference.precision) for record in records), 1.0)
        speedup |= speed_ratios(records)
    for candidate in sorted(usable, key=lambda c: -speedup.get((without_library(c.backend), c.precision), 0.0)):
        found = speedup.get((without_library(candidate.backend), candidate.precision))
        why = "not measured by `diffood verify`" if found is None else f"{found:.2f} times the calibrated one's speed"
        yield EngineCandidate(candidate.backend, candidate.precision, why)


def passed_records(bundle: Bundle, calibration: Calibration) -> list[ParityRecord]:
    """Variants that passed `diffood verify` for this calibration. Raises BundleError as `load_parity` does."""
    found = load_parity(bundle)
    failed = [check for check in found.checks or () if check.outcome == "failed"]
    return [
        record
        for record in found.records
        if record.passed
        and record.reference == calibration.fingerprint
        and not any(check.is_about(record.variant) for check in failed)
    ]


def speed_ratios(records: Iterable[ParityRecord]) -> dict[tuple[Backend, Precision], float]:
    """Speed of each judged variant relative to the calibrated one; of several records the last counts."""
    return {
        (record.variant.backend, record.variant.precision): record.images_per_second
        / record.reference_images_per_second
        for record in records
        if record.reference_images_per_second > 0
    }


def open_first(
    bundle: Bundle, candidates: EngineCandidates, load: Callable[[EngineCandidate], Opened], *, choosing: bool
) -> Opened:
    """What `load` makes of the first candidate for which it raises neither BundleError nor DeviceError.

    A candidate whose calibration is refused is passed over too; those passed over are named in the next one's `why`.
    choosing: False raises the first error instead.

    Raises:
        CalibrationError, BundleError, DeviceError: The first, if no candidate is left.
        UsageError: There was no candidate.
    """
    refused: DiffoodError | None = None
    passed_over = ""
    for candidate in candidates.usable:
        try:
            return load(replace(candidate, why=candidate.why + passed_over))
        except (BundleError, CalibrationError, DeviceError) as error:
            if not choosing:
                raise
            refused = refused or error
            reason = error.reason if isinstance(error, RefusedEngineError) else str(error).rstrip(".")
            passed_over += f"; not {candidate.precision} on {candidate.backend} because {reason}"
    raise refused or no_engine_error(bundle, candidates)


def no_engine_error(bundle: Bundle, candidates: EngineCandidates) -> UsageError:
    """The error if no candidate can run here, with every reason."""
    reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in candidates.skipped)
    return UsageError(f"No engine here can run {bundle.path} with these options: {reasons}.")
