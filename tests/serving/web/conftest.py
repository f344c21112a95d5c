"""A calibrated small bundle, and an onnxruntime-web for the page that is made of it."""

import shutil
from pathlib import Path

import pytest
from web_packages import make_package

from diffood.calibration.calibrate import calibrate_files
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.serving.web.runtime import PACKAGE

CHEAP = {"start_times": (120,), "stride": 120, "repeats": 1, "guidance": 0.0, "stages": ()}


@pytest.fixture(scope="session")
def calibrated_small(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle, clothes_folder: Path) -> Path:
    """A copy of the small bundle, calibrated on the cheapest plan that denoises; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("web") / "bundle"))
    plan = open_bundle(path).plan("default").changed(CHEAP)
    detector = Detector.load(open_bundle(path), plan, batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.1, 0.95, "pac").save()
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that looks like onnxruntime-web."""
    return make_package(tmp_path / PACKAGE)
