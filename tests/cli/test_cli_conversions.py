"""Every verb that reads images says how many it converted, and how."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffood.export.images import read_sample
from diffood.runtime.images.decode import ImageShape

MACHINE = ("--batch", "8", "--threads", "1")
FAST = (*MACHINE, "--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")
KINDS = {"resized": 20, "stretched to another aspect ratio": 12, "RGB to grey": 12, "alpha dropped": 8}
LINE = "of 20 images{}: 20 resized, 12 RGB to grey, 12 stretched to another aspect ratio, 8 alpha dropped"
Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Path:
    """Twenty clothes of another size: twelve in colour and stretched, eight grey with alpha; read-only."""
    folder = tmp_path_factory.mktemp("odd")
    for index, path in enumerate(sorted(clothes_folder.iterdir())[:20]):
        image = Image.open(path)
        if index < 12:
            image.convert("RGB").resize((64, 48)).save(folder / path.name)
        else:
            grey = image.resize((56, 56)).convert("LA")
            grey.putalpha(200)
            grey.save(folder / path.name)
    return folder


def test_every_verb_counts_conversions(
    run: Run, odd: Path, calibrated: Path, small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    page, rows = tmp_path / "page.html", tmp_path / "rows.jsonl"
    sets = ("--ind", clothes_folder, "--ood", f"odd={odd}")
    for words, of in (
        (("calibrate", small_bundle_copy, "--images", odd, *FAST, "--fpr", "0.2"), ""),
        (("evaluate", calibrated, *sets, *MACHINE), " of odd"),
        (("report", calibrated, *sets, "--output", page, *MACHINE), " of odd"),
        (("serve-batch", calibrated, odd, "--output", rows, *MACHINE), ""),
    ):
        done = run(*words)
        assert done.code == 0, done
        lines = [line for line in done.out.splitlines() if line.startswith("converted")]
        assert lines == [f"converted   {LINE.format(of)}"], words[0]


def test_conversions_are_in_json(
    run: Run, odd: Path, calibrated: Path, small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    words = ("calibrate", small_bundle_copy, "--images", odd, *FAST, "--fpr", "0.2", "--json")
    assert run(*words).content["conversions"] == KINDS
    words = ("evaluate", calibrated, "--ind", odd, "--ood", f"clothes={clothes_folder}", *MACHINE, "--json")
    assert run(*words).content["conversions"] == {"ind": KINDS, "clothes": {}}
    words = ("serve-batch", calibrated, odd, "--output", tmp_path / "rows.jsonl", *MACHINE, "--json")
    assert run(*words).content["conversions"] == run(*words, "--resume").content["conversions"] == KINDS


def test_images_that_int8_and_bench_are_given_are_counted(odd: Path) -> None:
    lines: list[str] = []
    assert read_sample([str(odd)], ImageShape(1, 28, 28), 100, lines.append).shape == (20, 1, 28, 28)
    assert lines == [f"converted   {LINE.format('')}"]


def test_conversions_of_images_that_fit_a_fusion_are_counted(
    run: Run, odd: Path, small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(clothes_folder, tmp_path / "images"))
    for path in odd.iterdir():
        shutil.copy(path, images / f"odd-{path.name}")
    done = run("calibrate", small_bundle_copy, "--images", images, "--fpr", "0.1", *MACHINE, "--json")
    assert done.content["conversions"] == KINDS
