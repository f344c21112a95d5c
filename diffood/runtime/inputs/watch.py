"""Live inputs: a watched folder, and paths on standard input.

They give a pause when the next item may take long, so that the items before it are scored first.
"""

import errno
import os
import select
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.inputs.files import LONGEST_LINE, RefusedLine, list_entry, walk, why_unlisted
from diffood.runtime.inputs.items import PAUSE, Item, Pause, RefusedItem, utf8_name
from diffood.runtime.inputs.versions import FileVersion, VersionStamp, stamp_at

POLL_SECONDS = 0.5
SETTLE_SECONDS = 1.0
"""A file is complete when its size and time have not changed for this long; cameras write an image in less."""
REST_FACTOR = 10  # listing a folder with very many files is followed by a rest this many times as long
READ_BYTES = 2**16
LISTING_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new try after an error that may pass."""
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ETIMEDOUT,
                     errno.ESTALE, errno.EHOSTDOWN, errno.ENETDOWN, errno.ENETUNREACH})  # fmt: skip
"""Errors of a machine that is short of something, and of disks on a network."""


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


def watch_folder(watch: WatchedFolder, stop: threading.Event, outputs: Sequence[str] = ()) -> Iterator[Item | Pause]:
    """Files of a folder once they are complete, existing ones first. Ends when `stop` is set.

    A file whose inode, size or times have changed since it was given is given again. One that was removed or replaced
    before it was complete is given too, to be refused; so is a link to a folder with one of `outputs`, real paths.

    Raises UsageError if it is not a folder, DiffoodError if it can no longer be listed.
    """
    if not watch.folder.is_dir():
        raise UsageError(f"--watch {watch.folder} is not a folder; create it first.")
    return _watch(ListedFolder(watch, outputs), watch, stop)


def _watch(listed: "ListedFolder", watch: WatchedFolder, stop: threading.Event) -> Iterator[Item | Pause]:
    last_change, pending, failures = time.monotonic(), False, 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            found = list(listed.next_items())
            failures = 0
        except OSError as error:
            if error.errno not in PASSING or failures == len(LISTING_WAITS):
                raise DiffoodError(
                    f"The watched folder {watch.folder} can no longer be listed ({error.strerror})."
                ) from None
            stop.wait(LISTING_WAITS[failures])
            failures += 1
            continue
        yield from found
        if pending and not found:
            yield PAUSE
        pending = bool(found)
        now = time.monotonic()
        if found or listed.changed:
            last_change = now
        if watch.idle_seconds is not None and not listed.waits and now - last_change >= watch.idle_seconds:
            return
        stop.wait(max(watch.poll_seconds, REST_FACTOR * (now - began)) if not found else 0)


_State = VersionStamp | str
"""The stamp of a file, or why a folder cannot be listed."""


class ListedFolder:
    """A folder that is listed again and again.

    Attributes:
        changed: Whether the last listing had something new that is not complete yet.
    """

    def __init__(self, watch: WatchedFolder, outputs: Sequence[str] = ()) -> None:
        self._watch, self._outputs, self.changed = watch, outputs, False
        self._given: dict[str, _State] = {}
        self._waiting: dict[str, tuple[FileVersion | RefusedItem, _State, float]] = {}  # and since when it is so
        self._gone: list[FileVersion] = []  # at the last listing; they may have been moved while it went on

    @property
    def waits(self) -> bool:
        """Whether something is not complete yet."""
        return bool(self._waiting or self._gone)

    def next_items(self) -> Iterator[Item]:
        """List the folder once; gives what is complete, in order. Raises OSError if it cannot be listed."""
        waiting: dict[str, tuple[FileVersion | RefusedItem, _State, float]] = {}
        whole, present, unlisted, gone = list[Item](), dict[str, _State](), list[str](), list[FileVersion]()
        self.changed = False
        for name, path, error in walk(self._watch.folder, outputs=self._outputs):
            if error is not None and path == self._watch.folder:
                raise error
            if error is not None:
                unlisted.append(f"{name}/")
            state = stamp_at(path) if error is None else why_unlisted(error)
            if state is None or (error is not None and error.errno == errno.ENOENT):
                continue  # moved away meanwhile
            present[name] = state
            if self._given.get(name) == state:
                continue
            now, before = time.monotonic(), self._waiting.get(name)
            if before is None or before[1] != state:
                item = _item(name, path, state)
                waiting[name] = (item, state, now)
                self.changed = True
            elif now - before[2] >= self._watch.settle_seconds:
                whole.append(before[0])
                self._given[name] = state
            else:
                waiting[name] = before
        for name, before in self._waiting.items():
            if name not in present and name.startswith(tuple(unlisted)):
                waiting[name] = before
            elif isinstance(before[0], FileVersion) and not _is_same_file(before[1], present.get(name)):
                gone.append(before[0])
        lost = self._lost(present)
        self._given = {name: state for name, state in self._given.items() if name in present}
        self._waiting, self._gone = waiting, gone
        yield from [*lost, *whole]

    def _lost(self, present: dict[str, _State]) -> list[FileVersion]:
        """Files that were gone at the last listing already, and are nowhere in this one: not moved, but removed."""
        inodes = {state[2] for state in present.values() if not isinstance(state, str)} if self._gone else set()
        return [file for file in self._gone if file.stamp and file.stamp[0] and file.stamp[2] not in inodes]


def _item(name: str, path: Path, state: _State) -> FileVersion | RefusedItem:
    if isinstance(state, str):
        return RefusedItem(name, utf8_name(os.fspath(path)), state)
    return FileVersion(name, path, state)


def _is_same_file(before: _State, now: _State | None) -> bool:
    """Whether a name still has the same file, which may have grown."""
    return now is not None and not isinstance(before, str) and not isinstance(now, str) and before[2] == now[2]


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
