"""Images that the UNet was trained on, where that is known: left out of calibrations, told by evaluate."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from halved_graphs import reseal

from diffood.runtime.bundle.trained import TRAINED, pack_trained, shorten
from diffood.runtime.method.plan import DEFAULT

MACHINE = ("--batch", "8", "--threads", "1")
FAST = (*MACHINE, "--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")
Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture
def bundle(small_bundle_copy: Path, clothes_folder: Path) -> Path:
    """A bundle whose UNet is said to have been trained on the first fifteen of eighty clothes."""
    trained = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(clothes_folder.iterdir())[:15]]
    (small_bundle_copy / TRAINED).write_bytes(pack_trained(shorten(trained)))
    reseal(small_bundle_copy, lambda manifest: manifest["files"].setdefault(TRAINED, {}))
    return small_bundle_copy


def test_images_the_unet_was_trained_on_are_left_out_and_told(run: Run, bundle: Path, clothes_folder: Path) -> None:
    done = run("calibrate", bundle, "--images", clothes_folder, *FAST)
    assert done.code == 0, done
    assert "trained on  15 other images given, by the UNet: left out" in done.out
    assert "images      65 scored" in done.out
    content = run("evaluate", bundle, "--ind", clothes_folder, *MACHINE, "--json").content
    assert content["seen"] == {"ind": {"calibrated": 65, "trained": 15}}
    assert "15 of 80 images the UNet was trained on" in run("evaluate", bundle, "--ind", clothes_folder, *MACHINE).out


def test_too_few_other_images_are_refused_with_the_reason(
    run: Run, bundle: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "some").mkdir()
    for path in sorted(clothes_folder.iterdir())[:60]:
        shutil.copy(path, tmp_path / "some")
    done = run("calibrate", bundle, "--images", tmp_path / "some", *FAST)
    done.assert_one_line(1, "The UNet was trained on 15 of these images", "45 images are too few", "at least 59")


def test_tune_tells_images_the_unet_was_trained_on(
    run: Run, bundle: Path, clothes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = DEFAULT.changed({"start_times": (240,), "stride": 240, "repeats": 1, "guidance": 0.0, "stages": ()})
    monkeypatch.setattr("diffood.calibration.tune.list_plans", lambda _: [plan])
    done = run("tune", bundle, "--ind", clothes_folder, "--budget", 100, "--images", 80, *MACHINE)
    assert done.code == 0, done
    assert "trained on  15 of these images, by the UNet; give others" in done.out.splitlines()


def test_damaged_hashes_are_refused(run: Run, bundle: Path, clothes_folder: Path) -> None:
    (bundle / TRAINED).write_bytes(b"PK")
    reseal(bundle, lambda _: None)
    run("calibrate", bundle, "--images", clothes_folder, *FAST).assert_one_line(1, TRAINED, "remove it")
