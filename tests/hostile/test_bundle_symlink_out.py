"""Attack: a file of the bundle is a link to a place outside, which can change after the check; or a FIFO."""

import os
import threading
from pathlib import Path

import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs as POSIX has them")


def test_a_link_to_the_same_bytes_outside_is_refused(victim: Path, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name in ["classify.onnx", "golden.npz", "noise_levels.npz", "manifest.json"]:
        with subtests.test(name=name), undone(victim):
            (victim / name).rename(tmp_path / name)
            (victim / name).symlink_to(tmp_path / name)
            with pytest.raises(BundleError, match=rf"{name} cannot be opened \(.+\); copy the bundle again"):
                open_bundle(victim)


def test_a_link_to_an_endless_device_is_refused(victim: Path) -> None:
    (victim / "manifest.json").unlink()
    (victim / "manifest.json").symlink_to("/dev/zero")
    with pytest.raises(BundleError, match=r"manifest\.json cannot be opened"):
        open_bundle(victim)


def test_a_fifo_does_not_hang(victim: Path, subtests: pytest.Subtests) -> None:
    for name in ["golden.npz", "manifest.json"]:
        with subtests.test(name=name), undone(victim):
            (victim / name).unlink()
            os.mkfifo(victim / name)
            raised: list[BaseException] = []

            def attempt() -> None:
                try:
                    open_bundle(victim)
                except BundleError as error:
                    raised.append(error)

            thread = threading.Thread(target=attempt, daemon=True)
            thread.start()
            thread.join(timeout=20)
            assert not thread.is_alive()
            assert f"{name} is not a regular file" in str(raised[0])


def test_a_link_to_the_whole_folder_is_the_users_own(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(victim)
    assert open_bundle(tmp_path / "link").read("golden.npz") == (victim / "golden.npz").read_bytes()
