"""Attack: a bundle that was copied in part, or is no bundle."""

import json
from pathlib import Path

import pytest

from diffood import zoo
from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

FILES = sorted(json.loads((zoo.BUNDLE / "manifest.json").read_bytes())["files"])


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_refused_by_name(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} cannot be opened \(No such file or directory\); copy the bundle"):
        open_bundle(bundle_copy)


def test_a_folder_where_a_file_belongs_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "golden.npz").unlink()
    (bundle_copy / "golden.npz").mkdir()
    with pytest.raises(BundleError, match=r"golden\.npz is not a regular file"):
        open_bundle(bundle_copy)


def test_a_path_that_is_no_folder_is_refused(bundle_copy: Path) -> None:
    for path in (bundle_copy / "nowhere", bundle_copy / "manifest.json"):
        with pytest.raises(BundleError, match=r"is not a bundle: no such folder\. Make one with `diffood export"):
            open_bundle(path)
