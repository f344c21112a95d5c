"""Looks into a bundle: its files and their hashes, its engines, its calibrations, and what `verify` concluded."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffood.calibration.parity.checks import check_files
from diffood.calibration.parity.gate import describe_judgement
from diffood.calibration.parity.served import ServedEngines, list_served
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import Calibration, find_calibration, list_kept, load_calibrated_fusion
from diffood.runtime.bundle.detectors import DetectorRecord, find_stale, load_detectors, read_detector
from diffood.runtime.bundle.digest import digest_of
from diffood.runtime.bundle.engines import EngineFolder, list_engines
from diffood.runtime.bundle.parity import ParityFile, load_parity
from diffood.runtime.bundle.signing import SignatureState, list_signatures
from diffood.runtime.printable import shell_word


@dataclass(frozen=True)
class Inspection:
    """What a bundle holds.

    Attributes:
        bundle: The bundle; every file of its manifest was hashed.
        digest: One hash over all files that it can use.
        signatures: Those it has; a key in the environment, or of --trust, has verified those that name it.
        engines: Its TensorRT engines; their plan files were hashed.
        detectors: Its detector files; None if it has none.
        stale: Why one of them is not that of the bundle as it is now, by file.
        calibration: The one in force; None if it is not calibrated.
        kept: Earlier ones, by file name.
        judged: What `diffood verify` stored.
        serves: What serving chooses on this machine; None if it is not calibrated.
    """

    bundle: Bundle
    digest: str
    signatures: tuple[SignatureState, ...]
    engines: tuple[EngineFolder, ...]
    detectors: DetectorRecord | None
    stale: dict[str, str]
    calibration: Calibration | None
    kept: dict[str, Calibration]
    judged: ParityFile
    serves: ServedEngines | None

    def conclusions(self) -> list[str]:
        """What `diffood verify` concluded of each engine for the calibration in force, a line each."""
        if self.calibration is None:
            return []
        lines = [
            f"{found.variant.precision} on {found.variant.backend}: {found.what} {found.outcome}, {found.detail}"
            for found in self.judged.checks or ()
        ]
        for record in self.judged.records:
            name, verdict = f"{record.variant.precision} on {record.variant.backend}", describe_judgement(record)
            if record.calibration_sha256 == self.calibration.sha256:
                lines.append(f"{name}: {'passed' if record.passed else 'refused'}, {verdict}")
            else:
                again = f"`diffood verify {shell_word(self.bundle.path)}`"
                lines.append(f"{name}: judged with another calibration; run {again} again")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "digest": self.digest,
            "signatures": [asdict(one) for one in self.signatures],
            "manifest": self.bundle.manifest.model_dump(mode="json"),
            "engines": {engine.path.name: engine.record.model_dump(mode="json") for engine in self.engines},
            "detectors": self.detectors and self.detectors.model_dump(mode="json") | {"stale": self.stale},
            "calibration": self.calibration and self.calibration.summary(),
            "kept_calibrations": {
                name: old.summary() | {"fingerprint_short": old.fingerprint.short} for name, old in self.kept.items()
            },
            "verified": self.judged.model_dump(mode="json"),
            "serves": asdict(self.serves) if self.serves else None,
        }


def inspect_bundle(path: Path) -> Inspection:
    """Read everything in a bundle that says what it is; runs no graph.

    Raises BundleError for a file that is damaged or was changed.
    """
    bundle = open_bundle(path)
    calibration = find_calibration(bundle)
    load_calibrated_fusion(bundle, calibration)  # its bank has a hash too
    check_files(bundle)  # so have the engines
    detectors, engines, kept = load_detectors(bundle), tuple(list_engines(bundle)), list_kept(bundle)
    stale = _check_detectors(bundle, detectors, calibration)
    judged = load_parity(bundle)
    hashes = bundle.hash_files()  # last: what was read above is not read again
    return Inspection(
        bundle=bundle,
        digest=digest_of(hashes),
        signatures=tuple(list_signatures(bundle, hashes)),
        engines=engines,
        detectors=detectors,
        stale=stale,
        calibration=calibration,
        kept=kept,
        judged=judged,
        serves=list_served(bundle, calibration, {}) if calibration else None,
    )


def _check_detectors(bundle: Bundle, record: DetectorRecord | None, calibration: Calibration | None) -> dict[str, str]:
    """Why files are stale, by name. Raises BundleError for one that was changed."""
    stale: dict[str, str] = {}
    if record is None:
        return stale
    for entry in record.files:
        if reason := find_stale(bundle, record, entry, calibration):
            stale[entry.file] = reason
        else:
            read_detector(bundle, entry.precision)
    return stale
