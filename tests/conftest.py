"""Fixtures many tests share: bundles, copies that may be damaged, and real images as arrays and files.

A test that needs *a* bundle takes the small one, which loads and scores in milliseconds; a test that needs the trained
zoo's own numbers takes that one. Images and classes are the same.
"""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as scripts start background jobs; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before numpy and torch are imported: each worker of pytest-xdist has one core
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before a test imports onnxruntime

import shutil
from collections.abc import Callable
from pathlib import Path

import exported
import hypothesis
import latent_models
import numpy as np
import numpy.typing as npt
import pytest
from fast_plans import WITH_BANK
from filelock import FileLock
from small_models import SMALL_BUNDLE

from diffood import zoo
from diffood.calibration.calibrate import Calibrated, calibrate_files
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.zoo.images import load_set, unpack_set

for profile, examples in (("dev", 25), ("ci", 200)):  # pytest --hypothesis-profile=ci
    hypothesis.settings.register_profile(profile, max_examples=examples, derandomize=True, deadline=None)
hypothesis.settings.load_profile("dev")

MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Have a folder of a name filled by one worker of pytest-xdist and used by all; read-only."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = shared / f"once-{name}"
        with FileLock(shared / f"once-{name}.lock"):
            if not folder.exists():
                partial = shared / f"once-{name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                fill(partial)
                partial.rename(folder)
        return folder

    return make


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
def quantised_zoo(make_once: MakeOnce) -> tuple[Path, list[str]]:
    """A copy of the shipped bundle with INT8 graphs from the fewest images that do, and what was reported; read-only.

    Quantising takes most of a minute, so all tests share it.
    """
    pytest.importorskip("onnx")
    pytest.importorskip("torch")
    from diffood.export.int8.quantize import FEWEST_IMAGES, quantize_bundle

    def fill(folder: Path) -> None:
        bundle = Path(shutil.copytree(zoo.BUNDLE, folder / "bundle"))
        lines: list[str] = []
        images = load_set("fashion-validation").images[:FEWEST_IMAGES, None]
        quantize_bundle(bundle, images, report=lines.append)
        (folder / "lines.txt").write_text("\n".join(lines))

    folder = make_once("int8", fill)
    return folder / "bundle", (folder / "lines.txt").read_text().split("\n")


@pytest.fixture(scope="session")
def int8_bundle(quantised_zoo: tuple[Path, list[str]]) -> Path:
    """A copy of the shipped bundle with INT8 graphs next to its FP32 ones; read-only."""
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
def dit_pipeline() -> Path:
    """A DiT with its AutoencoderKL, random weights, as DiTPipeline saves them; read-only."""
    latent_models.need_export()
    return exported.models_of(exported.DIT)


@pytest.fixture(scope="session")
def dit_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of that, in FP32 and FP16; read-only."""
    return exported.copy_exported(exported.DIT, tmp_path_factory.mktemp("dit") / "bundle")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 96 in-distribution PNG files: 32 to fit on and 64 to calibrate on; read-only."""
    path = tmp_path_factory.mktemp("fusing") / "images"
    unpack_set("fashion-validation", path, 96)
    return path


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Calibrated:
    """A calibration of every default witness and a bank, saved into a copy of the shipped bundle; read-only."""
    path = Path(shutil.copytree(zoo.BUNDLE, tmp_path_factory.mktemp("bank") / "bundle"))
    detector = Detector.load(open_bundle(path), WITH_BANK, batch=8, threads=1)
    done = calibrate_files(detector, list_inputs([str(folder)]), 0.05, 0.95, "pac")
    done.save()
    return done
