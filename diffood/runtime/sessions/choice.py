"""Which backend and precision a bundle runs on here: asked for, to be had, and allowed by the calibration."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from diffood.errors import UsageError
from diffood.runtime.backends import AUTO, Backend, BackendChoice
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.parity import ParityRecord, load_parity
from diffood.runtime.sessions.backends import examine_backends

PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]


@dataclass(frozen=True)
class EngineCandidate:
    """One way to run: a backend and a precision, and why it comes where it does."""

    backend: Backend
    precision: Precision
    why: str


def describe_engine(precision: str, backend: str, why: str) -> str:
    """One line that says what runs, and why if that is known."""
    return f"{precision} on {backend}{f': {why}' if why else ''}"


@dataclass(frozen=True)
class EngineCandidates:
    """Ways to run, best first; skipped: what cannot be had here, as (precision on backend, reason)."""

    usable: tuple[EngineCandidate, ...]
    skipped: tuple[tuple[str, str], ...]


def list_candidates(
    bundle: Bundle,
    calibration: Calibration | None,
    backend: BackendChoice,
    precision: PrecisionChoice | None,
    batch: int,
) -> EngineCandidates:
    """Order the ways to run this bundle here.

    precision None: the calibration's, FP32 without one. "auto": what `diffood verify` measured to be fastest first;
    that speed is read from the bundle, so the same bundle gives the same choice. backend "auto": engines before ONNX
    Runtime, GPU before CPU. Raises UsageError for a precision the bundle does not hold.
    """
    wanted = bundle.precisions if precision == "auto" else (precision or _calibrated_precision(calibration),)
    if missing := set(wanted) - set(bundle.precisions):
        raise UsageError(
            f"{bundle.path} has no {missing.pop()} graphs, only {', '.join(bundle.precisions)}; "
            "export it with that --precision."
        )
    usable, skipped = [], []
    for choice in wanted:
        for found in examine_backends(bundle, choice, batch):
            if backend not in (AUTO, found.backend):
                continue
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
    """By the ratio to the calibrated variant's speed, as verified; what was never measured keeps its place behind."""
    speedup: dict[tuple[Backend, Precision], float] = {}
    if calibration is not None:
        records = passed_records(bundle, calibration)
        speedup = dict.fromkeys(((record.reference.backend, record.reference.precision) for record in records), 1.0)
        speedup |= speed_ratios(records)
    for candidate in sorted(usable, key=lambda c: -speedup.get((c.backend, c.precision), 0.0)):
        found = speedup.get((candidate.backend, candidate.precision))
        why = "not measured by `diffood verify`" if found is None else f"{found:.2f} times the calibrated one's speed"
        yield EngineCandidate(candidate.backend, candidate.precision, why)


def passed_records(bundle: Bundle, calibration: Calibration) -> list[ParityRecord]:
    """What `diffood verify` let pass beside what was calibrated. Raises BundleError as `load_parity` does."""
    records = load_parity(bundle).records
    return [record for record in records if record.passed and record.reference == calibration.fingerprint]


def speed_ratios(records: Iterable[ParityRecord]) -> dict[tuple[Backend, Precision], float]:
    """Speed of each judged variant over the calibrated one's, as measured beside it; the last of several counts."""
    return {
        (record.variant.backend, record.variant.precision): record.images_per_second
        / record.reference_images_per_second
        for record in records
        if record.reference_images_per_second > 0
    }


def no_engine_error(bundle: Bundle, candidates: EngineCandidates) -> UsageError:
    """The error where no candidate can run here: every reason, one after the other."""
    reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in candidates.skipped)
    return UsageError(f"Nothing here can run {bundle.path} as asked for: {reasons}.")
