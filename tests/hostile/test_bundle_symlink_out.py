"""Attack: a file of the bundle is a link to a place outside, which can change after the check; or a FIFO."""

import os
import threading
from pathlib import Path

import pytest

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs as POSIX has them")


@pytest.mark.parametrize("name", ["classify.onnx", "golden.npz", "noise_levels.npz", "manifest.json"])
def test_a_link_to_the_same_bytes_outside_is_refused(bundle_copy: Path, tmp_path: Path, name: str) -> None:
    (bundle_copy / name).rename(tmp_path / name)
    (bundle_copy / name).symlink_to(tmp_path / name)
    with pytest.raises(BundleError, match=rf"{name} cannot be opened \(.+\); copy the bundle again"):
        open_bundle(bundle_copy)


def test_a_link_to_an_endless_device_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").unlink()
    (bundle_copy / "manifest.json").symlink_to("/dev/zero")
    with pytest.raises(BundleError, match=r"manifest\.json cannot be opened"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("name", ["golden.npz", "manifest.json"])
def test_a_fifo_does_not_hang(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).unlink()
    os.mkfifo(bundle_copy / name)
    raised: list[BaseException] = []

    def attempt() -> None:
        try:
            open_bundle(bundle_copy)
        except BundleError as error:
            raised.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert f"{name} is not a regular file" in str(raised[0])


def test_a_link_to_the_whole_folder_is_the_users_own(bundle_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle_copy)
    assert open_bundle(tmp_path / "link").read("golden.npz") == (bundle_copy / "golden.npz").read_bytes()
