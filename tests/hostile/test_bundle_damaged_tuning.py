"""tuning.json from another hand: refused before a threshold is fitted on images it may have named."""

import os
from pathlib import Path

import pytest
from attacks import undone
from sealed import sealed

from diffood.calibration.calibrate import calibrate_files
from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import TUNING, open_bundle
from diffood.runtime.bundle.tuning import load_tuned
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs

DAMAGED = {
    "no JSON": b"{",
    "binary": b"\xff\x00",
    "a list": b"[]",
    "another field": sealed({"format": 1, "images": [], "more": 1}),
    "a newer format": sealed({"format": 2, "images": []}),
    "no hash": sealed({"images": ["A" * 64]}),
    "no plan chosen": sealed({"measured": {"unit": "milliseconds", "limit": 1, "made": True, "plans": []}}),
    "deep": b"[" * 100_000,
}


def test_a_damaged_record_is_refused(victim: Path, subtests: pytest.Subtests) -> None:
    for case, data in DAMAGED.items():
        with subtests.test(case=case), undone(victim):
            (victim / TUNING).write_bytes(data)
            with pytest.raises(BundleError, match=r"tuning\.json is invalid: .*; copy the bundle again"):
                load_tuned(open_bundle(victim))


def test_a_link_a_folder_and_a_fifo_are_refused(victim: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_bytes(sealed({"images": []}))
    record = victim / TUNING
    record.symlink_to(secret)
    with pytest.raises(BundleError, match="cannot be opened"):
        load_tuned(open_bundle(victim))
    record.unlink()
    record.symlink_to(tmp_path / "nothing")  # not taken for a bundle that was never tuned
    with pytest.raises(BundleError, match="cannot be opened"):
        load_tuned(open_bundle(victim))
    record.unlink()
    record.mkdir()
    with pytest.raises(BundleError, match="not a regular file"):
        load_tuned(open_bundle(victim))
    record.rmdir()
    os.mkfifo(record)
    with pytest.raises(BundleError, match="not a regular file"):
        load_tuned(open_bundle(victim))


def test_calibrate_asks_it_first(victim: Path, clothes_folder: Path) -> None:
    (victim / TUNING).write_bytes(b"{")
    detector = Detector.load(open_bundle(victim), open_bundle(victim).plan("plain"), batch=8, threads=1)
    with pytest.raises(BundleError, match=r"tuning\.json"):
        calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.05, 0.95, "pac")
