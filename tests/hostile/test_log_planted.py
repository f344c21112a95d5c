"""Attack: the name of the log is a link, a hard link to another file, a FIFO, a device or a folder."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from diffood.errors import UsageError
from diffood.serving.watching.log import EventLog

pytestmark = pytest.mark.skipif(os.name != "posix", reason="special files as POSIX has them")


def test_nothing_but_a_regular_file_of_one_name_becomes_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's address may have about 100 bytes only
    victim = Path("victim")
    victim.write_bytes(b"mine")
    listener = socket.socket(socket.AF_UNIX)
    cases: list[tuple[Callable[[Path], object], str]] = [
        (lambda path: path.symlink_to(victim), "is a link"),
        (lambda path: path.symlink_to("created"), "is a link"),
        (lambda path: path.hardlink_to(victim), "has another name"),
        (os.mkfifo, "No such device"),  # without a reader, opening it would wait
        (lambda path: path.symlink_to("/dev/zero"), "is a link"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: listener.bind(str(path)), "No such device"),
    ]
    for number, (plant, message) in enumerate(cases):
        with subtests.test(message, number=number):
            path = Path(f"log-{number}")
            plant(path)
            with pytest.raises(UsageError, match=message):
                EventLog(path)
    listener.close()
    with subtests.test("a FIFO somebody reads"):
        os.mkfifo("fifo")
        reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(UsageError, match="not a regular file"):
            EventLog(Path("fifo"))
        os.close(reader)
    assert victim.read_bytes() == b"mine"
    assert not Path("created").exists()
