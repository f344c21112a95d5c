"""The bundle's detector files and detector.json, which says what each holds. Reads and checks them; assembles none.

They change with the calibration, so the manifest does not list them. `runtime.assembly.files` writes them: the files
first, then the record. After a crash between the two, no file passes for one of the present calibration.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffood.errors import BundleError, CalibrationError
from diffood.runtime.bundle.bundle import (
    CALIBRATION,
    DETECTOR_FILES,
    DETECTORS,
    Bundle,
    FileEntry,
    FileName,
    Precision,
    Role,
    Sha256,
)
from diffood.runtime.bundle.calibration import Calibration, find_calibration
from diffood.runtime.bundle.graphs import list_roles, name_of
from diffood.runtime.bundle.parity import load_parity, refusal
from diffood.runtime.method.plan import Plan
from diffood.runtime.printable import shell_word
from diffood.runtime.records import Record, Text

MAX_RECORD_BYTES = 2**20


class DetectorEntry(FileEntry):
    """One detector file.

    Attributes:
        precision: Of the graphs it was assembled from.
        file: Its ONNX file.
        data: Files with weights that must be in the same folder; the manifest has their hashes.
        graphs: sha256 of each of the graphs, as Bundle.sha256 gives it.
        calibrated: Whether it gives verdicts; the witnesses alone otherwise.
    """

    precision: Precision
    file: FileName
    data: tuple[FileName, ...] = ()
    graphs: dict[Role, Sha256]
    calibrated: bool


class DetectorRecord(Record):
    """The content of detector.json.

    Attributes:
        format: Format of the file.
        plan_name: The plan's name in the manifest; None for a plan that has none.
        plan: What all files compute.
        calibration_sha256: Hash of the calibration.json that was in force; None if there was none.
        files: The files, one for each precision.
    """

    format: Literal[1] = 1
    plan_name: Text | None
    plan: Plan
    calibration_sha256: Sha256 | None
    files: Annotated[tuple[DetectorEntry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_for_each_precision(self) -> "DetectorRecord":
        if len({entry.precision for entry in self.files}) < len(self.files):
            raise ValueError("files: a precision occurs twice")
        return self


@dataclass(frozen=True)
class DetectorFile:
    """A detector file whose bytes were hashed.

    Attributes:
        entry: What it is.
        plan: What it computes.
        model: Its bytes.
        calibration: The bundle's, which it was written for; None if there is none.
    """

    entry: DetectorEntry
    plan: Plan
    model: bytes
    calibration: Calibration | None


@dataclass(frozen=True)
class CalibratedDetector(DetectorFile):
    """A detector file that gives the verdicts of this calibration."""

    calibration: Calibration


def hash_graphs(bundle: Bundle, plan: Plan, precision: Precision) -> dict[Role, Sha256]:
    """sha256 of the graphs that a plan takes, by role."""
    return {role: bundle.sha256(bundle.graph(role, precision)) for role in list_roles(bundle, plan)}


def list_data(bundle: Bundle, plan: Plan, precision: Precision) -> tuple[FileName, ...]:
    """Files with weights that a plan's graphs have, ascending."""
    data = {bundle.graph(role, precision).data for role in list_roles(bundle, plan)}
    return tuple(sorted(filter(None, data)))


def detected_plan(bundle: Bundle, calibration: Calibration | None) -> Plan:
    """What the bundle's detector files compute: the calibrated plan, or the default one."""
    return calibration.fingerprint.plan if calibration else bundle.plan()


def calibrated_precisions(bundle: Bundle, calibration: Calibration) -> frozenset[Precision]:
    """Precisions that may serve with a calibration, on whatever backend: its own, and what passed `diffood verify`."""
    judged = load_parity(bundle)
    held = (calibration.fingerprint, *(record.variant for record in judged.records))
    return frozenset(
        found.precision
        for found in held
        if found.precision in bundle.precisions and found.is_of(bundle) and not refusal(judged, calibration, found)
    )


def load_detectors(bundle: Bundle) -> DetectorRecord | None:
    """What the bundle's detector files hold; None where none were written. Raises BundleError for a damaged record."""
    if not os.path.lexists(bundle.path / DETECTORS):
        return None
    return bundle.unlisted.read_record(DETECTORS, DetectorRecord, MAX_RECORD_BYTES, _remedy(bundle))


def save_detectors(bundle: Bundle, record: DetectorRecord) -> Path:
    """Write the record, after its files; returns its path."""
    return bundle.unlisted.write_record(DETECTORS, record)


def read_detector(bundle: Bundle, precision: Precision) -> DetectorFile:
    """The detector file of a precision, calibrated or not: the bytes returned are those that were hashed.

    Raises BundleError if there is none, it was changed, or it was made of another calibration or other graphs.
    """
    bundle.graph("classify", precision)
    record = load_detectors(bundle)
    entry = next((entry for entry in record.files if entry.precision == precision), None) if record else None
    if record is None or entry is None:
        raise BundleError(f"{bundle.path} has no {DETECTOR_FILES[precision]}; {_remedy(bundle)}.")
    calibration = find_calibration(bundle)
    if reason := find_stale(bundle, record, entry, calibration):
        raise BundleError(f"{bundle.path / entry.file} {reason}; {_remedy(bundle)}.")
    data = bundle.unlisted.read(entry.file, entry.size, _remedy(bundle))
    if (found := bundle.unlisted.hashes[entry.file]) != entry.sha256:
        raise BundleError(
            f"{bundle.path / entry.file} was changed after it was written: its sha256 is {found[:12]}…, {DETECTORS} "
            f"says {entry.sha256[:12]}…. Do not use it; {_remedy(bundle)}."
        )
    return DetectorFile(entry, record.plan, data, calibration)


def read_calibrated_detector(bundle: Bundle, precision: Precision) -> CalibratedDetector:
    """A detector file that gives verdicts.

    Raises CalibrationError if the calibration is for another precision and this one did not pass `diffood verify`,
    BundleError as `read_detector` does.
    """
    found = read_detector(bundle, precision)
    if found.calibration is None or not found.entry.calibrated:
        raise CalibrationError(
            f"{bundle.path / found.entry.file} gives no verdicts: the calibration is not for {precision}. Run "
            f"`diffood verify {shell_word(bundle.path)} --images DIR` to compare its verdicts with the calibrated "
            f"ones, or `diffood calibrate {shell_word(bundle.path)} --images DIR --precision {precision} --overwrite`."
        )
    return CalibratedDetector(found.entry, found.plan, found.model, found.calibration)


def find_stale(bundle: Bundle, record: DetectorRecord, entry: DetectorEntry, calibration: Calibration | None) -> str:
    """Why a file is not that of the bundle and its calibration, as the end of a sentence; "" if it is."""
    held, current = record.calibration_sha256, calibration.sha256 if calibration else None
    if held is None and current is not None:
        return "was written before the bundle was calibrated"
    if held != current:
        now = f"{CALIBRATION} is {current[:12]}…" if current else f"there is no {CALIBRATION}"
        return f"has the calibration {str(held)[:12]}…, and {now}"
    return _find_untrue(bundle, record, entry, calibration)


def _find_untrue(bundle: Bundle, record: DetectorRecord, entry: DetectorEntry, calibration: Calibration | None) -> str:
    """What of a record does not follow from the bundle, as the end of a sentence; "" if all of it does."""
    if record.plan != detected_plan(bundle, calibration) or record.plan_name != name_of(bundle, record.plan):
        return f"computes another plan than {CALIBRATION if calibration else 'the default one'}"
    if entry.graphs != hash_graphs(bundle, record.plan, entry.precision):
        return "was assembled from other graphs than the bundle has"
    if entry.file != DETECTOR_FILES[entry.precision] or entry.data != list_data(bundle, record.plan, entry.precision):
        return f"is not the file of {entry.precision}, or has other files of weights"
    if entry.calibrated != (calibration is not None and entry.precision in calibrated_precisions(bundle, calibration)):
        return f"{'gives' if entry.calibrated else 'gives no'} verdicts, against what `diffood verify` found"
    return ""


def _remedy(bundle: Bundle) -> str:
    return f"run `diffood export --bundle {shell_word(bundle.path)}`, which writes it again"
