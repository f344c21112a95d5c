"""Fixtures many tests share: the zoo's bundle, a copy that may be damaged, and real images as arrays and files."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from diffood import zoo
from diffood.runtime.bundle import Bundle, open_bundle
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
