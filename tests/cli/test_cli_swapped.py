"""A bundle where images belong and images where the bundle belongs, in every verb that takes both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]  # gives conftest.Done
IMAGES, BUNDLE, NEW = "{images}", "{bundle}", "{new}"
CASES = (
    ("calibrate", IMAGES, "--images", BUNDLE),
    ("calibrate", IMAGES, "--restore"),
    ("calibrate", IMAGES, "--plan-only"),
    ("evaluate", IMAGES, "--ind", BUNDLE),
    ("report", IMAGES, "--ind", BUNDLE, "--output", f"{NEW}.html"),
    ("verify", IMAGES, "--images", BUNDLE),
    ("tune", IMAGES, "--ind", BUNDLE, "--budget", "1"),
    ("bench", IMAGES, "--images", BUNDLE),
    ("serve-batch", IMAGES, BUNDLE, "--output", f"{NEW}.jsonl"),
    ("serve-batch", IMAGES, "--watch", BUNDLE, "--output", f"{NEW}.jsonl"),
    ("monitor", BUNDLE, "--bundle", IMAGES),
    ("inspect", IMAGES),
    ("export-triton", IMAGES, "--output", NEW),
    ("export-web", IMAGES, "--output", NEW),
    ("export", "--bundle", IMAGES, "--engine", "tensorrt-rtx"),
    # only one of the two is wrong
    ("calibrate", BUNDLE, "--images", BUNDLE, "--overwrite"),
    ("evaluate", BUNDLE, "--ind", IMAGES, "--ood", f"x={BUNDLE}"),
    ("verify", BUNDLE, "--images", BUNDLE),
    ("serve-batch", BUNDLE, BUNDLE, "--output", f"{NEW}.jsonl"),
    ("serve-batch", BUNDLE, "--watch", BUNDLE, "--output", f"{NEW}.jsonl"),
)


def test_a_swapped_bundle_and_folder_are_recognised(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    places = {"images": folders / "ind", "bundle": calibrated, "new": tmp_path / "new"}
    for words in CASES:
        with subtests.test(" ".join(words)):
            done = run(*(word.format(**places) for word in words))
            assert done.code in (1, 2), done
            done.assert_one_line(done.code, "were BUNDLE and the images swapped?")
            assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_bundle(run: Run, folders: Path) -> None:
    run("inspect", folders / "ind" / "0000.png").assert_one_line(1, "0000.png is not a bundle: it is a file")


def test_an_empty_folder_is_no_bundle(run: Run, tmp_path: Path) -> None:
    run("inspect", tmp_path).assert_one_line(1, "it has no manifest.json, and is empty")
