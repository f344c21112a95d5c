"""Attack: a bundle that was copied in part, or is no bundle."""

import json
from pathlib import Path

import pytest
from attacks import undone
from small_models import SMALL_BUNDLE

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

FILES = sorted(json.loads((SMALL_BUNDLE / "manifest.json").read_bytes())["files"])


def test_a_missing_file_is_refused_by_name(victim: Path, subtests: pytest.Subtests) -> None:
    for name in [*FILES, "manifest.json"]:
        with subtests.test(name=name), undone(victim):
            (victim / name).unlink()
            with pytest.raises(
                BundleError, match=rf"{name} cannot be opened \(No such file or directory\); copy the bundle"
            ):
                open_bundle(victim)


def test_a_folder_where_a_file_belongs_is_refused(victim: Path) -> None:
    (victim / "golden.npz").unlink()
    (victim / "golden.npz").mkdir()
    with pytest.raises(BundleError, match=r"golden\.npz is not a regular file"):
        open_bundle(victim)


def test_a_path_that_is_no_folder_is_refused(victim: Path) -> None:
    for path in (victim / "nowhere", victim / "manifest.json"):
        with pytest.raises(BundleError, match=r"is not a bundle: (no such folder|it is a file)\. Make one with"):
            open_bundle(path)
