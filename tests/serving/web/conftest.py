"""A calibrated small bundle, what looks like onnxruntime-web and the real one, and pages made of them."""

import shutil
from pathlib import Path

import pytest
from web_pages import calibrate_cheaply, find_package, make_package

from diffood.calibration.calibrate import Calibrated
from diffood.runtime.bundle.bundle import Bundle
from diffood.serving.web.runtime import PACKAGE
from diffood.serving.web.site import write_page


@pytest.fixture(scope="session")
def calibrated_small(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle, clothes_folder: Path) -> Path:
    """A copy of the small bundle, calibrated on the cheapest plan that denoises; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("web") / "bundle"))
    return calibrate_cheaply(path, clothes_folder)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that looks like onnxruntime-web."""
    return make_package(tmp_path / PACKAGE)


@pytest.fixture(scope="session")
def real_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real onnxruntime-web; read-only."""
    return find_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def zoo_page(tmp_path_factory: pytest.TempPathFactory, calibrated: Calibrated, real_package: Path) -> Path:
    """A page of the zoo's bundle; read-only."""
    folder = tmp_path_factory.mktemp("zoo") / "page"
    write_page(calibrated.detector.bundle.path, folder, real_package)
    return folder


@pytest.fixture(scope="session")
def small_page(tmp_path_factory: pytest.TempPathFactory, calibrated_small: Path, real_package: Path) -> Path:
    """A page of the small bundle; read-only."""
    folder = tmp_path_factory.mktemp("small") / "page"
    write_page(calibrated_small, folder, real_package)
    return folder
