"""A calibrated small bundle, and an onnxruntime-web for the page that is made of it."""

import shutil
from pathlib import Path

import pytest
from web_pages import calibrate_cheaply, make_package

from diffood.runtime.bundle.bundle import Bundle
from diffood.serving.web.runtime import PACKAGE


@pytest.fixture(scope="session")
def calibrated_small(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle, clothes_folder: Path) -> Path:
    """A copy of the small bundle, calibrated on the cheapest plan that denoises; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("web") / "bundle"))
    return calibrate_cheaply(path, clothes_folder)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that looks like onnxruntime-web."""
    return make_package(tmp_path / PACKAGE)
