"""Fixtures many tests share: bundles, copies that may be damaged, and real images as arrays and files.

A test that needs *a* bundle takes the small one, which loads and scores in milliseconds; a test that needs the trained
zoo's own numbers takes that one. Images and classes are the same.
"""

import shutil
from pathlib import Path

import latent_models
import numpy as np
import numpy.typing as npt
import pytest
from fast_plans import WITH_KNN

from diffood import zoo
from diffood.calibration.calibrate import Calibrated, calibrate_files
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import from_pixels
from diffood.runtime.inputs.open import list_inputs
from diffood.zoo.images import load_set, unpack_set

SMALL_BUNDLE = Path(__file__).parent / "data" / "small_bundle"


@pytest.fixture(scope="session")
def small_bundle() -> Bundle:
    """A bundle of tiny trained models, made by tests/support/make_small_bundle.py; read-only."""
    return open_bundle(SMALL_BUNDLE)


@pytest.fixture
def small_bundle_copy(tmp_path: Path) -> Path:
    """A copy of the small bundle that a test may calibrate or damage."""
    return Path(shutil.copytree(SMALL_BUNDLE, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def zoo_bundle() -> Bundle:
    """The shipped bundle of the trained zoo models; read-only."""
    return open_bundle(zoo.BUNDLE)


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Path:
    """A copy of the shipped bundle that a test may calibrate or damage."""
    return Path(shutil.copytree(zoo.BUNDLE, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def quantised_zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A copy of the shipped bundle with INT8 graphs from the fewest images that do, and what was reported; read-only.

    Quantising takes most of a minute, so all tests share it.
    """
    pytest.importorskip("onnx")
    pytest.importorskip("torch")
    from diffood.export.int8.quantize import FEWEST_IMAGES, quantize_bundle

    path = Path(shutil.copytree(zoo.BUNDLE, tmp_path_factory.mktemp("int8") / "bundle"))
    lines: list[str] = []
    quantize_bundle(path, from_pixels(load_set("fashion-validation").images[:FEWEST_IMAGES, None]), report=lines.append)
    return path, lines


@pytest.fixture(scope="session")
def int8_bundle(quantised_zoo: tuple[Path, list[str]]) -> Path:
    """A copy of the shipped bundle with INT8 graphs beside its FP32 ones; read-only."""
    return quantised_zoo[0]


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


@pytest.fixture(scope="session")
def dit_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiT with its AutoencoderKL, random weights, as DiTPipeline saves them; read-only."""
    latent_models.need_export()
    parts = {"transformer": latent_models.transformer(), "vae": latent_models.kl_autoencoder()}
    return latent_models.save_pipeline(tmp_path_factory.mktemp("dit"), **parts)


@pytest.fixture(scope="session")
def dit_exported(dit_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A bundle of that, in FP32 and FP16, and what its export said; read-only."""
    output = tmp_path_factory.mktemp("latent") / "bundle"
    return output, latent_models.export(dit_pipeline, output, "fp32,fp16")


@pytest.fixture(scope="session")
def dit_bundle(dit_exported: tuple[Path, list[str]]) -> Bundle:
    """That bundle, opened."""
    return open_bundle(dit_exported[0])


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 96 in-distribution PNG files: 32 to fit on and 64 to calibrate on; read-only."""
    path = tmp_path_factory.mktemp("fusing") / "images"
    unpack_set("fashion-validation", path, 96)
    return path


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Calibrated:
    """A calibration of every default witness and knn, saved into a copy of the shipped bundle; read-only."""
    path = Path(shutil.copytree(zoo.BUNDLE, tmp_path_factory.mktemp("knn") / "bundle"))
    detector = Detector.load(open_bundle(path), WITH_KNN, batch=8, threads=1)
    done = calibrate_files(detector, list_inputs([str(folder)]), 0.05, 0.95, "pac")
    done.save()
    return done
