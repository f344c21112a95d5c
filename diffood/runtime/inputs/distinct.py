"""Gives each item once, under an id of its own, and none that has a row from an earlier run.

A live input may give a file again that was replaced meanwhile. Then the id gets a number: x.png, x.png#2, x.png#3.
"""

import contextlib
import hashlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace

from diffood.errors import DiffoodError, RejectedImage
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import Item, LocalFile, Pause, RefusedItem
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.versions import FileVersion, stamp_at

NUMBERED = re.compile(r"(.+)#[0-9]+", re.DOTALL)


def distinct(
    items: Iterator[Item | Pause], reading: ReadOptions, *, live: bool = False, files_are_distinct: bool = False
) -> Iterator[Item | Pause]:
    """Each place once; an id that another place already has is refused under a new id.

    Args:
        items: The items.
        reading: Which rows exist, and the limits of an image.
        live: A file is listed again if its inode, size or times differ; if a row from an earlier run has its name, if
            its bytes are not those of the row.
        files_are_distinct: Files come from one folder: only ids of members of containers in it are compared.
    """
    with contextlib.closing(_SeenIds()) as ids:
        for identity, sha256 in reading.done:
            ids.add_done(identity, sha256)
        for item in items:
            if isinstance(item, Pause) or (files_are_distinct and isinstance(item, LocalFile)):
                yield item
            elif live and isinstance(item, LocalFile):
                yield from _new_version(item, ids, reading.limits)
            elif ids.add(item.id, item.place):
                yield item
            elif ids.find(item.id).place not in (None, item.place):
                reason = f"Another image of this run has the id {item.id!r} too; give each its own id."
                yield RefusedItem(ids.rename(item.id, item.place), item.place, reason)


def _new_version(file: LocalFile, ids: "_SeenIds", limits: ImageLimits) -> Iterator[Item]:
    """The file, under a new id if another version of it has a row; nothing if this one has."""
    version = file if isinstance(file, FileVersion) else FileVersion(file.id, file.path, stamp_at(file.path))
    stamp = str(version.stamp)
    if ids.add(version.id, version.place, stamp):
        yield version
        return
    known = ids.find(version.id)
    if known.place is None:
        same = _sha256(version, limits) == known.sha256
    else:
        same = (known.place, known.stamp) == (version.place, stamp)
    ids.set_latest(version.id, version.place, stamp)
    if not same:
        yield replace(version, id=ids.rename(version.id, version.place))


def _sha256(file: FileVersion, limits: ImageLimits) -> str:
    """As a row has it: "" for a file that cannot be read."""
    try:
        return hashlib.sha256(file.read(limits)).hexdigest()
    except RejectedImage:
        return ""


@dataclass(frozen=True)
class _Known:
    """What is known of an id: of its latest version, if it has several.

    Attributes:
        place: None for a row of an earlier run.
        stamp: "" for what is no file of a live input.
        sha256: "" if the place is known.
    """

    place: str | None
    stamp: str
    sha256: str


class _SeenIds:
    """The ids of a run, in a SQLite database: in memory while it is small, otherwise in a temporary file."""

    def __init__(self) -> None:
        self._known = sqlite3.connect("", check_same_thread=False)  # one at a time, and any may end the run
        self._known.execute("PRAGMA journal_mode = OFF")
        self._known.execute(
            "CREATE TABLE seen (id TEXT PRIMARY KEY, place TEXT, stamp TEXT, sha256 TEXT, called INTEGER) WITHOUT ROWID"
        )

    def add(self, identity: str, place: str | None, stamp: str = "", sha256: str = "") -> bool:
        """Whether the id was new. Raises DiffoodError if the file cannot grow."""
        values = (identity, place, stamp, sha256)
        return self._run("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?, 1)", values).rowcount == 1

    def add_done(self, identity: str, sha256: str) -> None:
        """Add the id of a row from an earlier run, and tell the name of which it may be a later version."""
        self.add(identity, None, sha256=sha256)
        if name := NUMBERED.fullmatch(identity):
            self._run("UPDATE seen SET sha256 = ? WHERE id = ?", (sha256, name[1]))

    def find(self, identity: str) -> _Known:
        """What is known of a known id."""
        return _Known(*self._run("SELECT place, stamp, sha256 FROM seen WHERE id = ?", (identity,)).fetchone())

    def set_latest(self, identity: str, place: str, stamp: str) -> None:
        """Note the latest version of a known id."""
        self._run("UPDATE seen SET place = ?, stamp = ? WHERE id = ?", (place, stamp, identity))

    def rename(self, identity: str, place: str) -> str:
        """A new id for another place of this id: the id and the next number, so that thousands take no search."""
        [number] = self._run("SELECT called FROM seen WHERE id = ?", (identity,)).fetchone()
        number += 1
        while not self.add(f"{identity}#{number}", place):
            number += 1
        self._run("UPDATE seen SET called = ? WHERE id = ?", (number, identity))
        return f"{identity}#{number}"

    def _run(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._known.execute(statement, values)
        except sqlite3.Error as error:
            raise DiffoodError(
                f"The ids of this run cannot be remembered ({error}); free some space for temporary files, or set "
                "TMPDIR."
            ) from None

    def close(self) -> None:
        """Close the database."""
        self._known.close()
