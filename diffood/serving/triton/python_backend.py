"""Writes a model for Triton's Python backend, which decodes image files on the server. It needs diffood there."""

from collections.abc import Iterator
from pathlib import Path

from diffood.runtime.backends import BackendChoice
from diffood.runtime.bundle.bundle import (
    CALIBRATION,
    ENGINES,
    MANIFEST,
    PARITY,
    Bundle,
    kept_folder,
    open_bundle,
)
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.engines import RECORD, list_engines, read_plan
from diffood.runtime.bundle.files import record_bytes
from diffood.runtime.bundle.fusion import read_bank
from diffood.runtime.bundle.parity import load_parity
from diffood.runtime.detector import require_size
from diffood.serving.triton.config import TritonSettings, make_config
from diffood.serving.triton.repository import CONFIG, VERSION, ModelPlace

BUNDLE_FOLDER = "bundle"

MODEL = '''"""The verdicts of the bundle next to this file; written by `diffood export-triton`."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before ONNX Runtime is imported, by diffood or by lines of yours here

from diffood.serving.triton.model import TritonPythonModel  # noqa: E402, F401 - what Triton looks for here
'''


def write_decoding_model(path: Path, place: ModelPlace, settings: TritonSettings) -> Path:
    """Write a model that takes the bytes of image files, with its own copy of the bundle; all of it or nothing.

    Only what serving needs is copied: not the tuning, earlier calibrations, the detector files, or engines that the
    backend does not run. Every byte is hashed while it is copied, as when the bundle is opened.

    Args:
        path: The bundle.
        place: Where the model goes.
        settings: How the server runs the bundle.

    Returns:
        The model's folder.

    Raises:
        UsageError: The output exists, the name is invalid or a size impossible.
        BundleError: The bundle is damaged or lacks the precision.
        CalibrationError: The bundle is not calibrated.
    """
    place.require_possible()
    require_size(settings.batch, settings.threads)
    bundle = open_bundle(path)
    if settings.precision is not None and settings.precision != "auto":
        bundle.graph("classify", settings.precision)
    files = dict(_files_to_serve(bundle, settings.backend))
    with place.make() as folder:
        _write_model(folder, bundle, files, make_config(settings, place))
    return place.output / place.name


def _write_model(folder: Path, bundle: Bundle, files: dict[str, bytes], config: str) -> None:
    version = folder / VERSION
    version.mkdir(parents=True)
    (folder / CONFIG).write_text(config)
    (version / "model.py").write_text(MODEL)
    for file, data in files.items():
        target = version / BUNDLE_FOLDER / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    for file in bundle.manifest.files:
        bundle.copy(file, version / BUNDLE_FOLDER / file)


def _files_to_serve(bundle: Bundle, backend: BackendChoice) -> Iterator[tuple[str, bytes]]:
    """Files that the manifest does not list: names inside the bundle's folder, and bytes that were checked."""
    calibration = load_calibration(bundle)
    yield MANIFEST, record_bytes(bundle.manifest)
    yield CALIBRATION, record_bytes(calibration)
    judged = load_parity(bundle)
    if judged.records or judged.checks:
        yield PARITY, record_bytes(judged)
    if calibration.fusion and (bank := calibration.fusion.bank):
        yield f"{kept_folder(bundle).name}/{bank.file}", read_bank(bundle, bank)
    for engine in list_engines(bundle):
        if backend in ("auto", engine.record.library):
            place = f"{ENGINES}/{engine.path.name}"
            yield f"{place}/{RECORD}", record_bytes(engine.record)
            for stage in engine.record.stages:
                yield f"{place}/{stage.file}", read_plan(engine, stage)
