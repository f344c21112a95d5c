"""What the tests of workers and of clusters share: a calibrated bundle, files, and the rows of one machine."""

import shutil
from pathlib import Path

import pytest
from cheap_calibration import calibrate_cheaply

from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.items import Item
from diffood.runtime.inputs.open import list_inputs
from diffood.serving.local import LocalScorer
from diffood.serving.rows.row import Row
from diffood.zoo.images import unpack_set


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle, clothes_folder: Path) -> Path:
    """A copy of the small bundle, calibrated to flag about half of all images; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("cluster") / "bundle"))
    return calibrate_cheaply(path, clothes_folder, 0.5)


@pytest.fixture(scope="package")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Two hundred clothes and digits, two broken files among them."""
    folder = tmp_path_factory.mktemp("mixed")
    unpack_set("fashion-test", folder / "clothes", 120)
    unpack_set("digits", folder / "digits", 80)
    (folder / "clothes" / "broken.png").write_text("This is no image.\n")
    (folder / "digits" / "missing.png").symlink_to(folder / "nowhere.png")
    return list(list_inputs([str(folder)]))


@pytest.fixture(scope="package")
def local_rows(bundle: Path, sources: list[Item]) -> list[Row]:
    """The rows of the sources, scored by this process."""
    detector = Detector.open(bundle, batch=8, threads=1)
    return [scored.row for scored in LocalScorer(detector, detector.calibration()).rows(sources)]
