"""Attack: any one bit of a record of a bundle is flipped: it is refused, or says what it said."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from cheap_calibration import calibrate_cheaply
from small_models import SMALL_BUNDLE

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.detectors import load_detectors

RECORDS = ("manifest.json", "calibration.json", "detector.json")
TRIED = 150  # of each record, in the quick test


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Path:
    """A small calibrated bundle, which the tests leave as it was."""
    path = Path(shutil.copytree(SMALL_BUNDLE, tmp_path_factory.mktemp("bits") / "bundle"))
    return calibrate_cheaply(path, clothes_folder, 0.2)


def read_all(path: Path) -> tuple[Bundle, object, object]:
    bundle = open_bundle(path)
    return bundle, load_calibration(bundle), load_detectors(bundle)


def flip_each(path: Path, name: str, bits: Iterable[int]) -> int:
    """Flip bits of a file, one at a time; returns how many were not refused, and changed nothing."""
    original, expected, harmless = (path / name).read_bytes(), read_all(path), 0
    bundle = expected[0]
    readers = dict(
        zip(
            RECORDS,
            (lambda: open_bundle(path).manifest, lambda: load_calibration(bundle), lambda: load_detectors(bundle)),
            strict=True,
        )
    )
    known = {"manifest.json": bundle.manifest, "calibration.json": expected[1], "detector.json": expected[2]}
    try:
        for bit in bits:
            data = bytearray(original)
            data[bit // 8] ^= 1 << bit % 8
            (path / name).write_bytes(data)
            try:
                found = readers[name]()
            except BundleError as refused:
                assert str(refused).isprintable()
            else:
                assert found == known[name], f"bit {bit} of {name} says something else"
                harmless += 1
    finally:
        (path / name).write_bytes(original)
    return harmless


def test_bits_anywhere_in_a_record(calibrated: Path, subtests: pytest.Subtests) -> None:
    for name in RECORDS:
        with subtests.test(name=name):
            size = 8 * len((calibrated / name).read_bytes())
            flip_each(calibrated, name, np.random.default_rng(0).choice(size, TRIED, replace=False).tolist())


@pytest.mark.slow
def test_every_bit_of_every_record(calibrated: Path, subtests: pytest.Subtests) -> None:
    for name in RECORDS:
        with subtests.test(name=name):
            size = 8 * len((calibrated / name).read_bytes())
            assert flip_each(calibrated, name, range(size)) <= size / 1000  # an exponent's e that becomes E
