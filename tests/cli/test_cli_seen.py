"""Test images that were used before are not called fresh; evaluation without OOD sets."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.tuning import add_tuned
from diffood.zoo.images import unpack_set

MACHINE = ("--batch", "8", "--threads", "1")
Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty of the images that `calibrated` was calibrated on, the fusion included, under other names; read-only."""
    folder = tmp_path_factory.mktemp("used") / "images"
    unpack_set("fashion-validation", folder, 30)
    for path in folder.iterdir():
        path.rename(folder / f"again-{path.name}")
    return folder


def test_images_that_were_calibrated_on_are_not_called_fresh(
    run: Run, calibrated: Path, used: Path, folders: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = run("evaluate", calibrated, "--ind", used, *MACHINE, "--report", page)
    said = "30 of 30 images the bundle was calibrated on: what is measured on them is no check of the guarantee"
    assert f"not fresh     {said}" in done.out.splitlines()
    assert "of 30 in-distribution images" in done.out
    assert f"<strong>Not fresh:</strong> {said}." in page.read_text()
    mixed = Path(shutil.copytree(folders / "ind", tmp_path / "mixed"))
    shutil.copy(used / "again-0003.png", mixed)
    assert run("evaluate", calibrated, "--ind", mixed, *MACHINE, "--json").content["seen"] == {"ind": {"calibrated": 1}}


def test_fresh_images_are_called_fresh(run: Run, calibrated: Path, folders: Path) -> None:
    done = run("evaluate", calibrated, "--ind", folders / "ind", "--ood", f"d={folders / 'digits'}", *MACHINE)
    assert "of 10 fresh in-distribution images" in done.out
    assert "not fresh" not in done.out


def test_an_image_in_two_sets_is_told(run: Run, calibrated: Path, used: Path, folders: Path) -> None:
    sets = ("--ind", folders / "ind", "--ood", f"same={folders / 'ind'}", "--near", f"used={used}")
    done = run("evaluate", calibrated, *sets, *MACHINE)
    assert "10 of 10 images of same are also in-distribution test images" in done.out
    assert "30 of 30 images of used the bundle was calibrated on, as in-distribution" in done.out
    assert "of 10 fresh in-distribution images" in done.out


def test_images_a_plan_was_chosen_on_are_told(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(calibrated, tmp_path / "bundle"))
    rows = tmp_path / "rows.jsonl"
    run("serve-batch", bundle, folders / "ind", "--output", rows, *MACHINE)
    add_tuned(open_bundle(bundle), [json.loads(line)["sha256"] for line in rows.read_text().splitlines()[:4]])
    done = run("evaluate", bundle, "--ind", folders / "ind", *MACHINE)
    assert "4 of 10 images `diffood tune` chose the plan on" in done.out


def test_false_alarms_are_measured_without_an_ood_set(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    words = ("evaluate", calibrated, "--ind", folders / "ind", *MACHINE)
    with_ood = run(*words, "--ood", f"digits={folders / 'digits'}", "--json").content
    done = run(*words, "--output", tmp_path / "new")
    assert (done.code, done.err) == (0, "")
    assert "95% interval" in done.out
    assert "detection     not measured: no OOD set given" in done.out
    content = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert content["false_alarms"] == with_ood["false_alarms"]
    assert content["false_alarms"]["interval"][0] <= content["false_alarms"]["rate"]
    assert "auroc" not in content
    assert (tmp_path / "new" / "scores.png").read_bytes().startswith(b"\x89PNG")
