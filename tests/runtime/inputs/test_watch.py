"""A watched folder and paths on standard input: what is there is given at once, what is half written is not."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest
from tars import png

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.inputs.files import LONGEST_LINE, RefusedLine
from diffood.runtime.inputs.items import PAUSE, Pause
from diffood.runtime.inputs.watch import WatchedFolder, read_lines, watch_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="select on pipes")


class Watching:
    """A watched folder whose ids are collected in a thread; pauses among them."""

    def __init__(self, folder: Path, idle: float | None = None, settled: float = 0.1) -> None:
        self.stop, self.found, self.error = threading.Event(), list[str | Pause](), ""
        self._items = watch_folder(WatchedFolder(folder, idle, poll_seconds=0.02, settle_seconds=settled), self.stop)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            for item in self._items:
                self.found.append(item if isinstance(item, Pause) else item.id)
        except DiffoodError as error:
            self.error = str(error)

    def wait_for(self, *names: str | Pause) -> None:
        """Until exactly these were given, in this order, pauses included."""
        for _ in range(1000):
            if self.found == list(names):
                return
            time.sleep(0.01)
        pytest.fail(f"{self.found} is not {names}")

    def end(self) -> list[str | Pause]:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.found


def test_files_come_once_each_in_their_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", ".hidden.png"):
        (tmp_path / name).write_bytes(png(1))
    watching = Watching(tmp_path)
    watching.wait_for("a.png", "b.png", PAUSE)
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "c.png").write_bytes(png(1))
    watching.wait_for("a.png", "b.png", PAUSE, "day/c.png", PAUSE)
    time.sleep(0.3)
    assert watching.end() == ["a.png", "b.png", PAUSE, "day/c.png", PAUSE]


def test_a_file_that_is_moved_in_comes(tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    (tmp_path / "new.png").write_bytes(png(1))
    watching = Watching(tmp_path / "watched")
    (tmp_path / "new.png").rename(tmp_path / "watched" / "new.png")
    watching.wait_for("new.png", PAUSE)
    watching.end()


def test_a_file_that_is_still_written_is_waited_for(tmp_path: Path) -> None:
    watching = Watching(tmp_path, settled=0.5)
    with (tmp_path / "slow.png").open("wb") as file:
        for byte in png(1)[:20]:
            file.write(bytes([byte]))
            file.flush()
            time.sleep(0.05)
        assert watching.found == []
    watching.wait_for("slow.png", PAUSE)
    watching.end()


def test_a_watch_ends_when_nothing_new_came(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    watching = Watching(tmp_path, idle=0.3)
    watching.thread.join(30)
    assert watching.found == ["a.png", PAUSE]


def test_nothing_depends_on_the_clock_of_the_wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> float:
        raise AssertionError("the wall's clock may jump")

    monkeypatch.setattr(time, "time", forbidden)
    for number, stamp in enumerate((0, 4_000_000_000)):  # files from 1970 and from 2096
        path = tmp_path / f"{number}.png"
        path.write_bytes(png(1))
        os.utime(path, (stamp, stamp))
    watching = Watching(tmp_path, idle=0.2)
    watching.thread.join(30)
    assert watching.found == ["0.png", "1.png", PAUSE]


def test_a_folder_that_is_missing_or_goes_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        watch_folder(WatchedFolder(tmp_path / "nowhere"), threading.Event())
    (tmp_path / "here").mkdir()
    watching = Watching(tmp_path / "here")
    (tmp_path / "here").rmdir()
    watching.thread.join(30)
    assert "can no longer be listed" in watching.error


def test_lines_come_as_they_are_written() -> None:
    reading, writing = os.pipe()
    lines = read_lines(threading.Event(), reading)
    os.write(writing, b"a.png\nb with space.png\r\n\nhal")
    assert [next(lines), next(lines), next(lines)] == ["a.png", "b with space.png", PAUSE]
    os.write(writing, b"f.png\n\xff.png")
    assert next(lines) == "half.png"
    os.close(writing)
    assert list(lines) in ([os.fsdecode(b"\xff.png")], [PAUSE, os.fsdecode(b"\xff.png")])
    os.close(reading)


def test_a_pipe_nobody_writes_to_any_more_ends_the_lines() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    assert list(read_lines(threading.Event(), reading)) == []
    os.close(reading)
    with pytest.raises(DiffoodError, match="can no longer be read"):
        list(read_lines(threading.Event(), reading))


def test_a_line_that_is_too_long_is_refused_and_the_next_one_read() -> None:
    reading, writing = os.pipe()
    data = b"a\n" + b"x" * (3 * LONGEST_LINE) + b"\nb\n" + b"y" * (LONGEST_LINE + 1)
    thread = threading.Thread(target=lambda: (os.write(writing, data), os.close(writing)))
    thread.start()
    lines = [line for line in read_lines(threading.Event(), reading) if not isinstance(line, Pause)]
    assert lines == ["a", RefusedLine(2), "b", RefusedLine(4)]
    thread.join()
    os.close(reading)


def test_lines_end_when_they_are_stopped() -> None:
    reading, writing = os.pipe()
    stop = threading.Event()
    lines = read_lines(stop, reading)
    os.write(writing, b"a\n")
    assert next(lines) == "a"
    stop.set()
    assert list(lines) == []
    os.close(reading)
    os.close(writing)
