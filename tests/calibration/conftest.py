"""Fixtures of the tests of fusions: real images in files, and a bundle calibrated on them."""

import shutil
from pathlib import Path

import pytest
from fast_plans import WITH_KNN

from diffood import zoo
from diffood.calibration.calibrate import Calibrated, calibrate_files
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.files import expand_inputs
from diffood.zoo.images import unpack_set


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 96 in-distribution PNG files: 32 to fit on and 64 to calibrate on; read-only."""
    path = tmp_path_factory.mktemp("fusing") / "images"
    unpack_set("fashion-validation", path, 96)
    return path


@pytest.fixture(scope="package")
def calibrated(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Calibrated:
    """A calibration of every default witness and knn, saved into a copy of the shipped bundle; read-only."""
    path = Path(shutil.copytree(zoo.BUNDLE, tmp_path_factory.mktemp("knn") / "bundle"))
    detector = Detector.load(open_bundle(path), WITH_KNN, batch=8, threads=1)
    done = calibrate_files(detector, expand_inputs([str(folder)]), 0.05, 0.95, "pac")
    done.save()
    return done
