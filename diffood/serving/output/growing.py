"""A file of rows as lines that grows, and can be cut back to a point of which the hash is known."""

import hashlib
import os
from pathlib import Path

from diffood.errors import DiffoodError
from diffood.runtime.bundle.durable import write_all
from diffood.serving.output.journal import Mark
from diffood.serving.rows.formats import LineFormat, head, line
from diffood.serving.rows.row import Row

CHUNK = 2**20


class Growing:
    """An open file of rows. mark: cut it back to there, and go on; None: begin it, whatever was there before.

    Each row reaches the file at once, so that it can be read while it grows. Raises DiffoodError where the file is not
    what the mark says.
    """

    def __init__(self, path: Path, kind: LineFormat, mark: Mark | None = None) -> None:
        self.path, self._kind, self.rows = path, kind, 0
        self._digest, self._bytes = hashlib.sha256(), 0
        if mark is None:
            path.unlink(missing_ok=True)  # a link planted there is not followed
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        else:
            self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            self._begin() if mark is None else self._cut(mark)
        except BaseException:
            self.close()
            raise

    def write(self, row: Row) -> None:
        """Append one row."""
        self._append(line(row, self._kind))
        self.rows += 1

    def mark(self, part: int) -> Mark:
        """Have all rows so far on the disk, and say which they are."""
        os.fsync(self._descriptor)
        return Mark(part=part, rows=self.rows, bytes=self._bytes, sha256=self._digest.hexdigest())

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._descriptor)

    def _begin(self) -> None:
        self._append(head(self._kind))

    def _append(self, data: bytes) -> None:
        write_all(self._descriptor, data)
        self._digest.update(data)  # what was not written whole is not counted
        self._bytes += len(data)

    def _cut(self, mark: Mark) -> None:
        while self._bytes < mark.bytes and (data := os.read(self._descriptor, min(CHUNK, mark.bytes - self._bytes))):
            self._digest.update(data)
            self._bytes += len(data)
        if self._digest.hexdigest() != mark.sha256:
            raise damaged(self.path)
        os.ftruncate(self._descriptor, mark.bytes)
        self.rows = mark.rows


def damaged(path: Path) -> DiffoodError:
    """That a file is not what the journal says."""
    return DiffoodError(
        f"{path} is not as it was written: something else changed it. Put it back, or start anew with --overwrite."
    )
