"""A file of rows that is appended to, and can be cut back to a checkpoint whose hash is known."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffood.runtime.bundle.durable import write_all
from diffood.serving.output.journal import Checkpoint
from diffood.serving.output.rereading import FileState, inode_of, require_inode
from diffood.serving.rows.formats.base import LineFormat
from diffood.serving.rows.row import Row

CHUNK = 2**20
FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK


class LineFile:
    """An open file of rows. Each row reaches the file at once, so that it can be read while it grows.

    Attributes:
        path: Of the file.
        rows: Number of rows in it.
    """

    def __init__(self, path: Path, kind: LineFormat, checkpoints: Sequence[Checkpoint] = ()) -> None:
        """Open the file.

        Args:
            path: Of the file.
            kind: Format of its rows.
            checkpoints: In order. The file is cut back to the last one up to which it is as it was written; without
                one, it is begun anew.
        """
        self.path, self._kind, self.rows = path, kind, 0
        self._digest, self._bytes = hashlib.sha256(), 0
        found = _open_regular(path) if checkpoints else None
        if found is None:
            path.unlink(missing_ok=True)  # a planted link is removed, not followed
            found = os.open(path, FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        self._descriptor = found
        try:
            self._cut_back(checkpoints)
            if not self._bytes:
                self._append(kind.header)
        except BaseException:
            self.close()
            raise

    @property
    def state(self) -> FileState:
        """What the file must be if nothing else changes it."""
        return FileState(inode_of(os.fstat(self._descriptor)), self._bytes, self._digest.hexdigest())

    def read(self) -> Iterator[Row]:
        """All rows, from the open file rather than from its name."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            yield from self._kind.read_file(file, self.path)

    def write(self, row: Row) -> None:
        """Append one row."""
        self._append(self._kind.encode_row(row))
        self.rows += 1

    def checkpoint(self, part: int) -> Checkpoint:
        """Sync all rows so far to the disk and describe them. Raises DiffoodError if the name has another file."""
        require_inode(self.path, self._descriptor)
        os.fsync(self._descriptor)
        return Checkpoint(part=part, rows=self.rows, bytes=self._bytes, sha256=self._digest.hexdigest())

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        try:
            write_all(self._descriptor, data)
        except OSError:  # the disk is full: part of a row must not stay
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._bytes)
            raise
        self._digest.update(data)  # only what was written completely is counted
        self._bytes += len(data)

    def _cut_back(self, checkpoints: Sequence[Checkpoint]) -> None:
        digest, read = self._digest.copy(), 0
        for checkpoint in checkpoints:
            while read < checkpoint.bytes:
                data = os.read(self._descriptor, min(CHUNK, checkpoint.bytes - read))
                if not data:
                    break
                digest.update(data)
                read += len(data)
            if digest.hexdigest() != checkpoint.sha256:
                break
            self._digest, self._bytes, self.rows = digest.copy(), read, checkpoint.rows
        os.ftruncate(self._descriptor, self._bytes)


def _open_regular(path: Path) -> int | None:
    """A descriptor of a regular file; None if there is none of this name, or a link or something else."""
    try:
        descriptor = os.open(path, FLAGS)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None
