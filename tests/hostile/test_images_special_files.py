"""Attack: names in an image folder that are no files with bytes: FIFO, directory, device, socket, dangling link."""

import os
import resource
import socket
import threading
from pathlib import Path

import pytest

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, read_file
from diffood.runtime.inputs.members import open_regular

pytestmark = pytest.mark.skipif(os.name != "posix", reason="special files as POSIX has them")


def refusal(path: Path) -> str:
    with pytest.raises(RejectedImage) as caught:
        read_file(path, ImageLimits())
    message = str(caught.value)
    assert str(path) not in message
    assert message.isprintable()
    return message


def test_a_fifo_without_writer_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    assert "a FIFO, not a regular file" in refusal(tmp_path / "x.png")


@pytest.fixture
def swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that becomes a FIFO in the moment when something is opened."""
    path = tmp_path / "x.png"
    path.write_bytes(b"bytes")
    really_open = os.open

    def swap_and_open(name: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return really_open(name, flags)

    monkeypatch.setattr(os, "open", swap_and_open)
    return path


def test_a_file_that_becomes_a_fifo_before_it_is_opened_does_not_hang(swapped: Path) -> None:
    with pytest.raises(RejectedImage, match="a FIFO, not a regular file"):
        read_file(swapped, ImageLimits())


def test_an_archive_that_becomes_a_fifo_before_it_is_opened_does_not_hang(swapped: Path) -> None:
    with pytest.raises(OSError, match="not a regular file any more"):
        open_regular(swapped)


def test_a_directory_named_like_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    assert "a directory, not a regular file" in refusal(tmp_path / "x.png")


def test_a_link_to_an_endless_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to("/dev/zero")
    assert "a character device, not a regular file" in refusal(tmp_path / "x.png")


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's address may have about 100 bytes only
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("x.png")
        assert "a socket, not a regular file" in refusal(tmp_path / "x.png")


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to(tmp_path / "nowhere.png")
    assert "No such file or directory" in refusal(tmp_path / "x.png")


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to(tmp_path / "x.png")
    assert "cannot be read" in refusal(tmp_path / "x.png")


def test_a_missing_file_and_a_file_below_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "No such file or directory" in refusal(tmp_path / "x.png")
    assert "Not a directory" in refusal(tmp_path / "file" / "x.png")


def test_descriptors_are_closed_after_refusals(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open descriptors are counted in /proc")
    (tmp_path / "big.png").write_bytes(bytes(100))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        with pytest.raises(RejectedImage):
            read_file(tmp_path / "big.png", ImageLimits(max_bytes=99))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_lack_of_descriptors_that_passes_costs_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"bytes")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    timer = threading.Timer(0.2, resource.setrlimit, (resource.RLIMIT_NOFILE, before))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    timer.start()
    try:
        assert read_file(tmp_path / "x.png", ImageLimits()) == b"bytes"
    finally:
        timer.join()
