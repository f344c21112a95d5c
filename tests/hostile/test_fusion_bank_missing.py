"""Attack: the bank of a fusion is gone, or a folder lies in its place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from diffood.calibration.calibrate import calibrate_files
from diffood.cli import app
from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs


def test_a_missing_bank_is_refused_with_what_to_do(fused: Path, bank: Path, refusal: Callable[[], str]) -> None:
    bank.unlink()
    expected = f"{bank} cannot be opened (No such file or directory); calibrate again: `diffood calibrate {fused} "
    assert refusal().startswith(expected)
    with pytest.raises(BundleError, match="cannot be opened"):
        app(["inspect", str(fused)], standalone_mode=False)


def test_a_folder_in_its_place_is_refused(bank: Path, refusal: Callable[[], str]) -> None:
    bank.unlink()
    bank.mkdir()
    assert f"{bank} is not a regular file" in refusal()


def test_the_whole_folder_missing_is_refused(bank: Path, refusal: Callable[[], str]) -> None:
    bank.unlink()
    bank.parent.rmdir()
    assert f"{bank} cannot be opened" in refusal()


def test_calibrating_again_as_it_says_repairs_it(
    fused: Path, bank: Path, clothes_folder: Path, clothes: npt.NDArray[np.uint8]
) -> None:
    expected = Detector.open(fused, batch=8, threads=1).score(clothes[:3]).score
    bank.unlink()
    plain = Detector.open(fused, "plain", batch=8, threads=1)  # which needs no bank
    assert plain.score(clothes[:1]).score.shape == (1,)
    bundle = open_bundle(fused)
    detector = Detector.load(bundle, load_calibration(bundle).fingerprint.plan, batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.1, 0.95, "pac").save()
    assert Detector.open(fused, batch=8, threads=1).score(clothes[:3]).score.tolist() == expected.tolist()
