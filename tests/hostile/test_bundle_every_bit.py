"""Attack: any one bit of a record of a bundle is flipped: it is refused, or says what it said."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from attacks import reopened
from cheap_calibration import calibrate_cheaply
from full_bundle import complete
from record_readers import READERS, Reader
from small_models import SMALL_BUNDLE

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

TRIED = 100  # of each record, in the quick test


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Path:
    """A small calibrated bundle with every record there can be, which the tests leave as it was."""
    path = Path(shutil.copytree(SMALL_BUNDLE, tmp_path_factory.mktemp("bits") / "bundle"))
    return complete(calibrate_cheaply(path, clothes_folder, 0.2))


def flip_each(path: Path, read: Reader, bits: Iterable[int]) -> int:
    """Flip bits of a file, one at a time; returns how many were not refused, and changed nothing."""
    bundle, original, harmless = open_bundle(bundle_of(path)), path.read_bytes(), 0
    expected = read(bundle)
    try:
        for bit in bits:
            data = bytearray(original)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            try:
                found = read(reopened(bundle))
            except BundleError as refused:
                assert str(refused).isprintable()
            else:
                assert found == expected, f"bit {bit} of {path.name} says something else"
                harmless += 1
    finally:
        path.write_bytes(original)
    return harmless


def bundle_of(record: Path) -> Path:
    """The folder of the bundle that a record is in."""
    return next(folder for folder in record.parents if (folder / "manifest.json").exists())


def test_bits_anywhere_in_a_record(calibrated: Path, subtests: pytest.Subtests) -> None:
    for name, read in READERS.items():
        with subtests.test(name=name):
            (path,) = calibrated.glob(name)
            size = 8 * path.stat().st_size
            flip_each(path, read, np.random.default_rng(0).choice(size, TRIED, replace=False).tolist())


@pytest.mark.slow
def test_every_bit_of_every_record(calibrated: Path, subtests: pytest.Subtests) -> None:
    for name, read in READERS.items():
        with subtests.test(name=name):
            (path,) = calibrated.glob(name)
            size = 8 * path.stat().st_size
            assert flip_each(path, read, range(size)) <= size / 1000  # an exponent's e that becomes E
