"""What the tests of real servers share: a calibrated bundle, and the server that this machine has."""

import shutil
from pathlib import Path

import pytest
from triton_server import find_server

from diffood.calibration.calibrate import calibrate_files
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs


@pytest.fixture(scope="module")
def served_bundle(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle, clothes_folder: Path) -> Path:
    """A copy of the small bundle, calibrated with its default plan: four witnesses, two stages; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("served") / "bundle"))
    opened = open_bundle(path)
    detector = Detector.load(opened, opened.plan(), batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.1, 0.95, "pac").save()
    return path


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that starts the server this machine has."""
    return find_server(tmp_path_factory.mktemp("backends"))
