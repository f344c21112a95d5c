"""Inputs that go on while they are served: a watched folder, and paths on standard input.

Between items they pause where the next one may be long in coming, so that what is there is scored meanwhile.
"""

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.inputs.files import LONGEST_LINE, walk
from diffood.runtime.inputs.items import PAUSE, Item, LocalFile, Pause

LOOK_SECONDS = 0.5
SETTLED_SECONDS = 1.0
"""A file is whole when its size and time have not changed for so long; cameras write an image in less."""
LOOKING_SHARE = 10  # a look at a folder of very many files is followed by a rest of so many times its length
READ_BYTES = 2**16


@dataclass(frozen=True)
class WatchedFolder:
    """A folder whose files are served as they come. idle: seconds without a new file after which it ends, or None."""

    folder: Path
    idle: float | None = None
    look: float = LOOK_SECONDS
    settled: float = SETTLED_SECONDS


def watch_folder(watch: WatchedFolder, stop: threading.Event) -> Iterator[Item | Pause]:
    """Files of a folder once they are whole, those that are there first; each name once. Ends when `stop` is set.

    Raises UsageError where the folder cannot be listed at first, DiffoodError where it no longer can be.
    """
    if not watch.folder.is_dir():
        raise UsageError(f"--watch {watch.folder} is not a folder; make it before anything is put into it.")
    return _watch(watch, stop)


def _watch(watch: WatchedFolder, stop: threading.Event) -> Iterator[Item | Pause]:
    given: set[str] = set()
    waiting: dict[str, tuple[tuple[int, int, int], float]] = {}  # what a file was like, and since when
    last_change, pending = time.monotonic(), False
    while not stop.is_set():
        began = time.monotonic()
        present: set[str] = set()
        whole: list[LocalFile] = []
        for name, path, error in walk(watch.folder):
            if error is not None:
                if path == watch.folder:
                    raise DiffoodError(f"The watched folder {path} cannot be listed any more ({error.strerror}).")
                continue  # looked for again at the next look
            present.add(name)
            if name in given:
                continue
            state = _state(path)
            if state is None:
                continue
            now = time.monotonic()
            before = waiting.get(name)
            if before is None or before[0] != state:
                waiting[name] = (state, now)
                last_change = now
            elif now - before[1] >= watch.settled:
                whole.append(LocalFile(name, path))
        for source in whole:
            del waiting[source.id]
            yield source
        given = (given | {source.id for source in whole}) & present
        waiting = {name: state for name, state in waiting.items() if name in present}
        pending = pending or bool(whole)
        if pending and not whole:
            pending = False
            yield PAUSE
        now = time.monotonic()
        if whole:
            last_change = now
        if watch.idle is not None and not waiting and now - last_change >= watch.idle:
            return
        stop.wait(max(watch.look, LOOKING_SHARE * (now - began)) if not whole else 0)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:  # moved away in between; a dangling link never settles
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def read_lines(stop: threading.Event, descriptor: int | None = None) -> Iterator[str | Pause]:
    """Lines of standard input as they come, and a pause where the next one is not there yet. Ends when `stop` is set.

    Raises DiffoodError where it cannot be read, or a line is too long to be a path.
    """
    fd = sys.stdin.fileno() if descriptor is None else descriptor
    held, pending = b"", False
    while not stop.is_set():
        if not _ready(fd):
            if pending:
                pending = False
                yield PAUSE
            continue
        try:
            data = os.read(fd, READ_BYTES)
        except OSError as error:
            raise DiffoodError(f"standard input cannot be read any more ({error.strerror})") from None
        *lines, held = (held + data).split(b"\n")
        if not data:
            lines, held = [held], b""
        if len(held) > LONGEST_LINE:
            raise DiffoodError(f"a line of standard input has more than {LONGEST_LINE} bytes")
        for line in lines:
            if entry := os.fsdecode(line).strip():
                pending = True
                yield entry
        if not data:
            return


def _ready(fd: int) -> bool:
    try:
        return bool(select.select([fd], [], [], LOOK_SECONDS)[0])
    except (OSError, ValueError):  # Windows selects sockets only; then a read waits
        return True
