"""A calibration is replaced only when asked, is kept, and comes back with --restore."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MACHINE = ("--batch", "8", "--threads", "1")
FAST = (*MACHINE, "--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")
Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture
def bundle(calibrated: Path, tmp_path: Path) -> Path:
    """A calibrated bundle that a test may calibrate again."""
    return Path(shutil.copytree(calibrated, tmp_path / "bundle"))


def threshold(bundle: Path) -> float:
    return float(json.loads((bundle / "calibration.json").read_text())["threshold"])


def test_a_calibration_is_not_replaced_unasked(run: Run, bundle: Path, clothes_folder: Path) -> None:
    before = (bundle / "calibration.json").read_bytes()
    done = run("calibrate", bundle, "--images", clothes_folder, *FAST)
    done.assert_wrong_usage("is calibrated already (pac, 64 images", "--overwrite", "--restore")
    assert (bundle / "calibration.json").read_bytes() == before
    assert not (bundle / "calibrations").exists()


def test_an_unreadable_calibration_is_not_replaced_unasked(run: Run, bundle: Path, clothes_folder: Path) -> None:
    (bundle / "calibration.json").write_text("{}")
    words = ("calibrate", bundle, "--images", clothes_folder, *FAST)
    run(*words).assert_wrong_usage("is calibrated already (but not readable", "--overwrite")
    assert run(*words, "--overwrite").code == 0


def test_a_replaced_calibration_comes_back_and_goes_again(run: Run, bundle: Path, clothes_folder: Path) -> None:
    first = threshold(bundle)
    done = run("calibrate", bundle, "--images", clothes_folder, *FAST, "--overwrite")
    assert done.code == 0, done
    second = threshold(bundle)
    assert first != second
    [kept] = (bundle / "calibrations").iterdir()
    assert f"replaced    {kept.name}; `diffood calibrate {bundle} --restore --kept {kept.name}`" in done.out

    done = run("calibrate", bundle, "--restore")
    assert done.code == 0, done
    assert f"restored    {kept.name}: pac, 64 images" in done.out
    assert threshold(bundle) == first
    content = run("inspect", bundle, "--json").content
    assert [old["threshold"] for old in content["kept_calibrations"].values()] == [second]

    content = run("calibrate", bundle, "--restore", "--json").content  # the other way again
    assert (content["threshold"], content["replaced"]) == (second, kept.name)
    assert threshold(bundle) == second


def test_of_several_kept_calibrations_one_is_named(run: Run, bundle: Path, clothes_folder: Path) -> None:
    first = threshold(bundle)
    for rate in ("0.1", "0.2"):
        assert run("calibrate", bundle, "--images", clothes_folder, *FAST, "--fpr", rate, "--overwrite").code == 0
    names = list(run("inspect", bundle, "--json").content["kept_calibrations"])
    run("calibrate", bundle, "--restore").assert_wrong_usage("Several earlier", "--kept NAME", *names)
    run("calibrate", bundle, "--restore", "--kept", "zz").assert_wrong_usage(
        "0 earlier calibrations named 'zz'", *names
    )
    [wanted] = [name for name in names if json.loads((bundle / "calibrations" / name).read_text())["n"] == 64]
    assert run("calibrate", bundle, "--restore", "--kept", wanted[:8]).code == 0
    assert threshold(bundle) == first


def test_what_restore_cannot_do(run: Run, bundle: Path, clothes_folder: Path) -> None:
    run("calibrate", bundle, "--restore").assert_wrong_usage("has no earlier calibration to restore")
    run("calibrate", bundle, "--kept", "a").assert_wrong_usage("goes with --restore")
    words = ("calibrate", bundle, "--restore")
    run(*words, "--images", clothes_folder).assert_wrong_usage("leave --images, --ood-examples and --plan-only out")
