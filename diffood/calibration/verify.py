"""`diffood verify`: every variant that can run here, checked, and judged by its verdicts against the calibrated one."""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffood.calibration.parity.checks import Check, check_contract, check_files, check_golden, name_of
from diffood.calibration.parity.gate import Run, judge
from diffood.errors import DiffoodError
from diffood.runtime.bundle.bundle import CALIBRATION, Backend, Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import Calibration, load_calibrated_fusion, load_calibration
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.bundle.parity import Limits, ParityRecord, add_record, calibration_sha256
from diffood.runtime.detector import Detector, Scores
from diffood.runtime.images.decode import DEFAULT_LIMITS
from diffood.runtime.inputs.items import Item, load_item
from diffood.runtime.method.plan import Plan
from diffood.runtime.sessions.choice import BackendChoice, list_candidates

CHUNK_BATCHES = 4  # batches decoded at a time; bounds memory

Sets = Mapping[str, Sequence[Item]]  # "ind" and OOD sets by name
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Wanted:
    """What to verify: backends, precisions (none named: all of the bundle), and what the gate allows."""

    backend: BackendChoice
    precisions: Collection[Precision]
    limits: Limits
    batch: int
    threads: int


@dataclass(frozen=True)
class Verification:
    """Every check in order, the gate's judgements, and the images that could not be used, as (id, reason)."""

    checks: tuple[Check, ...]
    records: tuple[ParityRecord, ...]
    set_aside: tuple[tuple[str, str], ...]

    @property
    def passed(self) -> bool:
        """Whether nothing that could be checked failed."""
        return all(check.passed is not False for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "parity": [record.model_dump(mode="json") for record in self.records],
            "set_aside": [list(entry) for entry in self.set_aside],
        }


def verify_bundle(path: Path, sets: Sets, wanted: Wanted, progress: Progress | None = None) -> Verification:
    """Check the bundle and every session that can be opened here; judge those that differ from the calibrated one.

    Judgements are stored in the bundle. Raises BundleError where a file is not as it was exported or built.
    """
    bundle = open_bundle(path)
    calibration = load_calibration(bundle) if os.path.lexists(bundle.path / CALIBRATION) else None
    # without a calibration nothing says how witnesses are combined; the engines' work is the same
    plan = bundle.plan().plain if calibration is None else calibration.fingerprint.plan
    checks = check_files(bundle)
    fusion = load_calibrated_fusion(bundle, calibration)
    detectors, refused = _open_all(bundle, plan, fusion, wanted)
    checks += refused
    for detector in detectors:
        checks += [check_golden(detector), check_contract(detector)]
    if calibration is None:
        checks.append(Check("parity", "", None, f"not calibrated: run `diffood calibrate {path} --images DIR` first"))
    elif "ind" not in sets:
        checks.append(Check("parity", "", None, "no images to compare verdicts on: give --images DIR"))
    else:
        judged, records, set_aside = _judge_all(bundle, calibration, fusion, detectors, sets, wanted, progress)
        return Verification((*checks, *judged), records, set_aside)
    return Verification(tuple(checks), (), ())


def _open_all(bundle: Bundle, plan: Plan, fusion: Fusion | None, wanted: Wanted) -> tuple[list[Detector], list[Check]]:
    """Every way to run that was asked for and can be had; a check for each that cannot."""
    detectors, checks = [], []
    for precision in wanted.precisions or bundle.precisions:
        candidates = list_candidates(bundle, None, wanted.backend, precision, wanted.batch)
        # what was asked for by name must be there; of "auto" only what is
        passed = None if wanted.backend == "auto" else False
        checks += [Check("engine", name, passed, reason) for name, reason in candidates.skipped]
        for candidate in candidates.usable:
            detectors.append(_open(bundle, plan, fusion, candidate.backend, precision, wanted))
    return detectors, checks


def _open(
    bundle: Bundle, plan: Plan, fusion: Fusion | None, backend: Backend, precision: Precision, wanted: Wanted
) -> Detector:
    return Detector.load(
        bundle,
        plan,
        backend=backend,
        precision=precision,
        batch=wanted.batch,
        threads=wanted.threads,
        fusion=fusion,
    )


def _judge_all(
    bundle: Bundle,
    calibration: Calibration,
    fusion: Fusion | None,
    detectors: Sequence[Detector],
    sets: Sets,
    wanted: Wanted,
    progress: Progress | None,
) -> tuple[list[Check], tuple[ParityRecord, ...], tuple[tuple[str, str], ...]]:
    reference = _reference(bundle, calibration, fusion, detectors, wanted)
    if isinstance(reference, Check):
        return [reference], (), ()
    others = [detector for detector in detectors if detector.fingerprint != calibration.fingerprint]
    if not others:
        return [Check("parity", name_of(reference), True, "is what the calibration was fitted on")], (), ()
    scored = score_side_by_side([reference, *others], sets, progress)
    digest = calibration_sha256(bundle)
    checks, records = [], []
    for detector, run in zip(others, scored.runs[1:], strict=True):
        record = judge(scored.runs[0], run, calibration, digest, wanted.limits)
        add_record(bundle, record)
        records.append(record)
        checks.append(Check("parity", name_of(detector), record.passed, describe(record)))
    return checks, tuple(records), scored.set_aside


def _reference(
    bundle: Bundle, calibration: Calibration, fusion: Fusion | None, detectors: Sequence[Detector], wanted: Wanted
) -> Detector | Check:
    """The detector that the calibration was fitted on; a check that says why, where it cannot run here."""
    fitted = calibration.fingerprint
    for detector in detectors:
        if detector.fingerprint == fitted:
            return detector
    subject = f"{fitted.precision} on {fitted.backend}"
    try:
        detector = _open(bundle, fitted.plan, fusion, fitted.backend, fitted.precision, wanted)
    except DiffoodError as error:
        return Check("parity", subject, False, f"what was calibrated cannot run here: {error}")
    if detector.fingerprint != fitted:
        difference = fitted.difference(detector.fingerprint)
        return Check("parity", subject, False, f"what was calibrated is not what runs here: {difference}")
    return detector


def describe(record: ParityRecord) -> str:
    """One line of what the gate found."""
    flips = f"{record.flips} of {record.images} verdicts flip (95% interval up to {record.flip_bound:.2%})"
    shifts = [abs(found.auroc_variant - found.auroc_reference) for found in record.sets.values()]
    auroc = f", AUROC moves by {100 * max(shifts):.2f} points at most" if shifts else ""
    speed = record.images_per_second / record.reference_images_per_second if record.reference_images_per_second else 0
    problems = f"; refused: {'; '.join(record.problems)}" if record.problems else ""
    return (
        f"{flips}, p-values by {record.p_value_shift:.3f} at most, threshold by {record.threshold_shift:+.4f}{auroc}; "
        f"{speed:.2f} times the reference's speed{problems}"
    )


@dataclass(frozen=True)
class Scored:
    """Runs of several detectors over the same files, in their order; set_aside: files that could not be used."""

    runs: tuple[Run, ...]
    set_aside: tuple[tuple[str, str], ...]


def score_side_by_side(
    detectors: Sequence[Detector],
    sets: Mapping[str, Sequence[Item]],
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """Score every file with every detector, alternating by chunks so that a change of load hits all alike.

    Speeds count the detectors alone, without decoding.
    """
    shape, batch = detectors[0].bundle.manifest.image, detectors[0].session.batch
    found: list[dict[str, list[Scores]]] = [{name: [] for name in sets} for _ in detectors]
    seconds, images, set_aside = [0.0] * len(detectors), 0, []
    for name, sources in sets.items():
        for start in range(0, len(sources), CHUNK_BATCHES * batch):
            chunk = sources[start : start + CHUNK_BATCHES * batch]
            loaded = [(source, load_item(source, shape, DEFAULT_LIMITS)) for source in chunk]
            set_aside += [(source.id, item.error) for source, item in loaded if item.x is None]
            usable = [item.x for _, item in loaded if item.x is not None]
            for index, detector in enumerate(detectors if usable else ()):
                began = time.perf_counter()
                found[index][name].append(detector.score(np.stack(usable)))
                seconds[index] += time.perf_counter() - began
            images += len(usable)
            if progress:
                progress(len(chunk))
    runs = [
        Run(
            detector.fingerprint,
            {name: np.concatenate([np.empty(0), *(p.score for p in parts)]) for name, parts in found[index].items()},
            {
                name: np.concatenate([np.empty(0, np.int64), *(p.predicted for p in parts)])
                for name, parts in found[index].items()
            },
            images / seconds[index] if seconds[index] else 0.0,
        )
        for index, detector in enumerate(detectors)
    ]
    return Scored(tuple(runs), tuple(set_aside))
