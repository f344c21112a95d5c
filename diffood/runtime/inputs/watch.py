"""Live inputs: a watched folder, and paths on standard input.

They give a pause when the next item may take long, so that the items before it are scored first.
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
from diffood.runtime.inputs.files import LONGEST_LINE, RefusedLine, list_entry, walk
from diffood.runtime.inputs.items import PAUSE, Item, LocalFile, Pause

POLL_SECONDS = 0.5
SETTLE_SECONDS = 1.0
"""A file is complete when its size and time have not changed for this long; cameras write an image in less."""
REST_FACTOR = 10  # listing a folder with very many files is followed by a rest this many times as long
READ_BYTES = 2**16


@dataclass(frozen=True)
class WatchedFolder:
    """A folder whose files are served as they come.

    Attributes:
        folder: The folder.
        idle_seconds: Time without a new file after which watching ends; None: never.
        poll_seconds: Time between two listings.
        settle_seconds: Time without a change after which a file is complete.
    """

    folder: Path
    idle_seconds: float | None = None
    poll_seconds: float = POLL_SECONDS
    settle_seconds: float = SETTLE_SECONDS


def watch_folder(watch: WatchedFolder, stop: threading.Event) -> Iterator[Item | Pause]:
    """Files of a folder once they are complete, existing ones first; each name once. Ends when `stop` is set.

    Raises UsageError if it is not a folder, DiffoodError if it can no longer be listed.
    """
    if not watch.folder.is_dir():
        raise UsageError(f"--watch {watch.folder} is not a folder; create it first.")
    return _watch(watch, stop)


def _watch(watch: WatchedFolder, stop: threading.Event) -> Iterator[Item | Pause]:
    given: set[str] = set()
    waiting: dict[str, tuple[tuple[int, int, int], float]] = {}  # state of a file, and since when
    last_change, pending = time.monotonic(), False
    while not stop.is_set():
        began = time.monotonic()
        present: set[str] = set()
        whole: list[LocalFile] = []
        for name, path, error in walk(watch.folder):
            if error is not None:
                if path == watch.folder:
                    raise DiffoodError(f"The watched folder {path} can no longer be listed ({error.strerror}).")
                continue  # tried again at the next listing
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
            elif now - before[1] >= watch.settle_seconds:
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
        if watch.idle_seconds is not None and not waiting and now - last_change >= watch.idle_seconds:
            return
        stop.wait(max(watch.poll_seconds, REST_FACTOR * (now - began)) if not whole else 0)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:  # moved away meanwhile; a dangling link never settles
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def read_lines(stop: threading.Event, descriptor: int | None = None) -> Iterator[str | RefusedLine | Pause]:
    """Lines of standard input as they come, and a pause when the next one is not there yet. Ends when `stop` is set.

    A line that is too long to be a path is refused. Raises DiffoodError if standard input cannot be read.
    """
    fd = sys.stdin.fileno() if descriptor is None else descriptor
    held, number, pending = b"", 0, False
    while not stop.is_set():
        if not _ready(fd):
            if pending:
                pending = False
                yield PAUSE
            continue
        try:
            data = os.read(fd, READ_BYTES)
        except OSError as error:
            raise DiffoodError(f"standard input can no longer be read ({error.strerror})") from None
        *lines, held = (held + data).split(b"\n")
        held = held[: LONGEST_LINE + 1]  # enough to know that it is too long
        if not data:
            lines, held = [held], b""
        for line in lines:
            number += 1
            if entry := list_entry(line, number):
                pending = True
                yield entry
        if not data:
            return


def _ready(fd: int) -> bool:
    try:
        return bool(select.select([fd], [], [], POLL_SECONDS)[0])
    except (OSError, ValueError):  # Windows selects sockets only; then a read waits
        return True
