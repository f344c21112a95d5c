"""A file of rows that is appended to, and can be cut back to a checkpoint whose hash is known."""

import hashlib
import os
from pathlib import Path

from diffood.errors import DiffoodError
from diffood.runtime.bundle.durable import write_all
from diffood.serving.output.journal import Checkpoint
from diffood.serving.rows.formats.base import LineFormat
from diffood.serving.rows.row import Row

CHUNK = 2**20


class LineFile:
    """An open file of rows. Each row reaches the file at once, so that it can be read while it grows.

    Attributes:
        path: Of the file.
        rows: Number of rows in it.
    """

    def __init__(self, path: Path, kind: LineFormat, checkpoint: Checkpoint | None = None) -> None:
        """Open the file.

        Args:
            path: Of the file.
            kind: Format of its rows.
            checkpoint: Cut the file back to this point and continue; None starts a new file in its place.

        Raises:
            DiffoodError: The file differs from what was written up to the checkpoint.
        """
        self.path, self._kind, self.rows = path, kind, 0
        self._digest, self._bytes = hashlib.sha256(), 0
        if checkpoint is None:
            path.unlink(missing_ok=True)  # a planted link is removed, not followed
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        else:
            self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            if checkpoint is None:
                self._append(kind.header)
            else:
                self._cut_back(checkpoint)
        except BaseException:
            self.close()
            raise

    def write(self, row: Row) -> None:
        """Append one row."""
        self._append(self._kind.encode_row(row))
        self.rows += 1

    def checkpoint(self, part: int) -> Checkpoint:
        """Sync all rows so far to the disk and describe them."""
        os.fsync(self._descriptor)
        return Checkpoint(part=part, rows=self.rows, bytes=self._bytes, sha256=self._digest.hexdigest())

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        write_all(self._descriptor, data)
        self._digest.update(data)  # only what was written completely is counted
        self._bytes += len(data)

    def _cut_back(self, checkpoint: Checkpoint) -> None:
        end = checkpoint.bytes
        while self._bytes < end and (data := os.read(self._descriptor, min(CHUNK, end - self._bytes))):
            self._digest.update(data)
            self._bytes += len(data)
        if self._digest.hexdigest() != checkpoint.sha256:
            raise changed_since_written(self.path)
        os.ftruncate(self._descriptor, end)
        self.rows = checkpoint.rows


def changed_since_written(path: Path) -> DiffoodError:
    """The error that a file differs from what the journal says."""
    return DiffoodError(
        f"{path} was changed by something else since it was written. Restore it, or start over with --overwrite."
    )
