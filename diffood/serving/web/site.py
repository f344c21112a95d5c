"""Writes a page that judges images in the browser, from a calibrated bundle and onnxruntime-web."""

import json
import shutil
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import PIL

from diffood import __version__
from diffood.errors import BundleError, UsageError
from diffood.runtime.bundle.bundle import Bundle, FileEntry, Precision, open_bundle
from diffood.runtime.bundle.calibration import Calibration, load_calibration
from diffood.runtime.bundle.detectors import CalibratedDetector, DetectorFile, read_calibrated_detector
from diffood.runtime.printable import escape_for_terminal, escape_json
from diffood.runtime.writable import is_free, require_writable, whole_folder
from diffood.serving.web.checks import CheckImage, make_checks
from diffood.serving.web.runtime import WebRuntime, find_runtime

PAGE, CONFIG, DETECTOR, RUNTIME, CHECKS = "page", "config.json", "detector.onnx", "runtime", "checks"

MOST_DETECTOR_BYTES = 2**31 - 1
"""WebAssembly has 4 GiB, and holds a model twice while it is loaded."""


@dataclass(frozen=True)
class WrittenPage:
    """What was written.

    Attributes:
        precision: Of the detector.
        detector_bytes: Size of the detector with its weights.
        total_bytes: Size of the folder.
        runtime: Version of onnxruntime-web.
    """

    precision: str
    detector_bytes: int
    total_bytes: int
    runtime: str


def write_page(path: Path, output: Path, runtime: Path, precision: Precision | None = None) -> WrittenPage:
    """Write a folder with a page and all that it needs; all of it or nothing.

    Args:
        path: The bundle.
        output: Folder of the page; must not exist, or be empty.
        runtime: Folder of an unpacked onnxruntime-web.
        precision: Of the detector; None for the calibration's.

    Raises:
        UsageError: The output exists or cannot be written, or the runtime is missing.
        BundleError: The bundle is damaged, or too large for a browser, or its detector file is missing.
        CalibrationError: The bundle is not calibrated, or not for this precision.
    """
    require_writable(output, "--output", folder=True)
    if not is_free(output):
        raise UsageError(f"{output} exists and is not an empty folder; choose another --output.")
    bundle = open_bundle(path)
    precision = precision or load_calibration(bundle).fingerprint.precision
    web_runtime = find_runtime(runtime)
    detector = _read_detector(bundle, precision)
    calibration = detector.calibration
    checks = make_checks(bundle, calibration, detector.entry.precision)
    with whole_folder(output) as folder:
        with as_file(files("diffood.serving.web") / PAGE) as page:
            shutil.copytree(page, folder, dirs_exist_ok=True)
        (folder / RUNTIME).mkdir()
        for name, source in web_runtime.files.items():
            shutil.copyfile(source, folder / RUNTIME / name)
        (folder / DETECTOR).write_bytes(detector.model)
        for file in detector.entry.data:
            bundle.copy(file, folder / file)
        config = _describe(bundle, calibration, web_runtime, detector) | {"checks": _write_checks(folder, checks)}
        (folder / CONFIG).write_text(escape_json(json.dumps(config, indent=1, ensure_ascii=False)), encoding="utf-8")
    total = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    size = sum(file["size"] for file in (config["detector"], *config["weights"]))
    return WrittenPage(detector.entry.precision, size, total, web_runtime.version)


def _read_detector(bundle: Bundle, precision: Precision) -> CalibratedDetector:
    detector = read_calibrated_detector(bundle, precision)
    size = detector.entry.size + sum(bundle.entry(file).size for file in detector.entry.data)
    if size > MOST_DETECTOR_BYTES:
        raise BundleError(
            f"The {precision} detector of {bundle.path} has {size / 1e9:.1f} GB, and browsers load at most "
            f"{MOST_DETECTOR_BYTES / 1e9:.1f} GB: choose another --precision, or serve it with `diffood export-triton`."
        )
    return detector


def _describe(bundle: Bundle, calibration: Calibration, runtime: WebRuntime, detector: DetectorFile) -> dict[str, Any]:
    """What the page knows of its detector, without the checks."""
    image, own = bundle.manifest.image, calibration.own_thresholds
    of_class = f"; {len(own)} predicted classes have thresholds of their own" if own else ""
    return {
        "diffood": __version__,
        "onnxruntime_web": runtime.version,
        "pillow": int(PIL.__version__.split(".")[0]),
        "bundle": escape_for_terminal(bundle.path.absolute().name),
        "precision": detector.entry.precision,
        "image": {"channels": image.channels, "height": image.height, "width": image.width},
        "denoises": calibration.fingerprint.plan.denoises,
        "class_names": list(map(escape_for_terminal, bundle.manifest.class_names)),
        "threshold": f"An image is flagged as out-of-distribution when its score is above {calibration.threshold:.4g}"
        f"{of_class}.",
        "guarantee": calibration.guarantee,
        "detector": _describe_file(DETECTOR, detector.entry),
        "weights": [_describe_file(file, bundle.entry(file)) for file in detector.entry.data],
    }


def _describe_file(name: str, entry: FileEntry) -> dict[str, Any]:
    return {"file": name, "size": entry.size, "sha256": entry.sha256}


def _write_checks(folder: Path, checks: list[CheckImage]) -> list[dict[str, Any]]:
    """Write the check images into the page's folder; returns what its configuration says of them."""
    (folder / CHECKS).mkdir()
    described = []
    for number, check in enumerate(checks):
        image, pixels = f"{CHECKS}/{number}.png", f"{CHECKS}/{number}.pixels"
        (folder / image).write_bytes(check.png)
        (folder / pixels).write_bytes(check.pixels.tobytes())
        described.append({"image": image, "pixels": pixels, "answer": check.answer})
    return described
