"""What a page is made of: a bundle that is calibrated, and onnxruntime-web, the real one or one that looks like it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from diffood.calibration.calibrate import calibrate_files
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import DEFAULT, Plan
from diffood.serving.web.runtime import DEFAULT_FOLDER, FILES, PACKAGE, TESTED

CHEAP = DEFAULT.changed({"start_times": (120,), "stride": 120, "repeats": 1, "guidance": 0.0, "stages": ()})


def calibrate_cheaply(bundle: Path, images: Path, plan: Plan = CHEAP) -> Path:
    """Calibrate a bundle on the cheapest plan that denoises, or on another one; returns its path."""
    detector = Detector.load(open_bundle(bundle), plan, batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(images)]), 0.1, 0.95, "pac").save()
    return bundle


def make_package(folder: Path) -> Path:
    """Make a folder with the files that a page needs, by their names alone, and one that it does not need."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": PACKAGE, "version": TESTED}))
    for name in (*FILES, "ort.all.min.js"):
        (folder / "dist" / name).write_text(f"{name} of the package")
    return folder


def find_package(scratch: Path) -> Path:
    """The real package: the one that DIFFOOD_ONNXRUNTIME_WEB names, or what npm installs; skips where there is none."""
    if named := os.environ.get("DIFFOOD_ONNXRUNTIME_WEB"):
        return Path(named)
    if not shutil.which("npm"):
        pytest.skip("there is no npm here, and DIFFOOD_ONNXRUNTIME_WEB names no onnxruntime-web")
    (scratch / "package.json").write_text("{}")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", f"{PACKAGE}@{TESTED}"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr[-300:]}")
    return scratch / DEFAULT_FOLDER
