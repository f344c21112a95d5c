"""Records of a bundle in JSON: manifest, calibration, parity, tuning, detectors, engines; and signatures."""

import json
import shutil
from dataclasses import replace

import numpy as np
from json_mutations import change_record
from oracle import Scratch, attempt
from sealed import sealed
from small_models import SMALL_BUNDLE

from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import load_calibrated_fusion, load_calibration
from diffood.runtime.bundle.detectors import read_detector
from diffood.runtime.bundle.engines import EngineRecord
from diffood.runtime.bundle.files import read_record
from diffood.runtime.bundle.parity import load_parity
from diffood.runtime.bundle.signatures import EXPORT_SIGNATURE, SIGNATURES, read_signatures
from diffood.runtime.bundle.tuning import load_measured
from diffood.runtime.bundle.unlisted import UnlistedFiles
from diffood.runtime.decision import DecisionRule

SCRATCH = Scratch()
FOLDER = SCRATCH.path / "bundle"
shutil.copytree(SMALL_BUNDLE, FOLDER)
BUNDLE = open_bundle(FOLDER)
MANIFEST = (FOLDER / "manifest.json").read_bytes()
(FOLDER / SIGNATURES).mkdir()


def _calibration(bundle: Bundle) -> None:
    calibration = load_calibration(bundle)
    load_calibrated_fusion(bundle, calibration)
    rule = DecisionRule.of(calibration)
    assert rule.decide(np.array([0.1, np.nan]), np.array([0, 3])).is_ood[1], "what is no number passes"


READERS = (
    ("manifest.json", lambda bundle: open_bundle(FOLDER).plan()),
    ("calibration.json", _calibration),
    ("parity.json", load_parity),
    ("tuning.json", load_measured),
    ("detector.json", lambda bundle: read_detector(bundle, "fp32")),
    ("engine.json", lambda bundle: read_record(FOLDER, "engine.json", EngineRecord, limit=2**20)),
    (f"{SIGNATURES}/{EXPORT_SIGNATURE}", lambda bundle: read_signatures(FOLDER)),
)


def use(data: bytes) -> None:
    """The first byte says which record it is, and whether its author gave it the right hash."""
    if not data:
        return
    name, read = READERS[data[0] % len(READERS)]
    path = FOLDER / name
    path.write_bytes(_resealed(data[1:]) if data[0] & 0x80 else data[1:])
    try:
        attempt(lambda: read(replace(BUNDLE, unlisted=UnlistedFiles(FOLDER))))
    finally:
        path.unlink()
        if name == "manifest.json":
            path.write_bytes(MANIFEST)


def change(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage what a record says."""
    return data[:1] + change_record(data[1:], rng)


def _resealed(data: bytes) -> bytes:
    try:
        content = json.loads(data)
        return sealed(content) if isinstance(content, dict) else data
    except (ValueError, RecursionError):
        return data
