"""Fixtures many tests share: the zoo's bundle, a copy that may be damaged, and real images as arrays and files."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from diffood import zoo
from diffood.runtime.bundle import Bundle, open_bundle
from diffood.runtime.images import from_pixels
from diffood.zoo.images import load_set, unpack_set


@pytest.fixture(scope="session")
def zoo_bundle() -> Bundle:
    """The shipped bundle of the trained zoo models; read-only."""
    return open_bundle(zoo.BUNDLE)


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Path:
    """A copy of the shipped bundle that a test may calibrate or damage."""
    return Path(shutil.copytree(zoo.BUNDLE, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped bundle with INT8 graphs beside its FP32 ones; read-only."""
    pytest.importorskip("onnx")
    pytest.importorskip("torch")
    from diffood.export.quantize import quantize_bundle

    path = Path(shutil.copytree(zoo.BUNDLE, tmp_path_factory.mktemp("int8") / "bundle"))
    images = from_pixels(load_set("fashion-validation").images[:24, None])
    quantize_bundle(path, images, report=lambda _: None)
    return path


@pytest.fixture(scope="session")
def clothes() -> npt.NDArray[np.uint8]:
    """Forty real in-distribution images, uint8 [40, 28, 28]."""
    return load_set("fashion-test").images[:40]


@pytest.fixture(scope="session")
def digits() -> npt.NDArray[np.uint8]:
    """Forty real out-of-distribution images, uint8 [40, 28, 28]."""
    return load_set("digits").images[:40]


@pytest.fixture(scope="session")
def clothes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eighty in-distribution PNG files; read-only."""
    folder = tmp_path_factory.mktemp("clothes")
    unpack_set("fashion-validation", folder, 80)
    return folder
