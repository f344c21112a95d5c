"""Reads files of an output again, from the disk, and compares them with what was written."""

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from typing_extensions import Buffer

from diffood.errors import DiffoodError
from diffood.runtime.bundle.durable import write_all, write_durably

PIECE = 2**20  # bytes read at a time


@dataclass(frozen=True)
class FileState:
    """What a file is.

    Attributes:
        inode: Device and number.
        bytes: Size.
        sha256: Of its bytes.
    """

    inode: tuple[int, int]
    bytes: int
    sha256: str


def write_file(path: Path, data: bytes) -> FileState:
    """As `write_durably`; returns what the file must be from now on."""
    status = write_durably(path, data)
    return FileState(inode_of(status), len(data), hashlib.sha256(data).hexdigest())


def read_state(path: Path) -> FileState:
    """Read a regular file, whole, in pieces. Raises OSError for a link and anything that is no regular file."""
    with open_written(path) as file:
        digest, size = hashlib.sha256(), 0
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
        return FileState(inode_of(os.fstat(file.fileno())), size, digest.hexdigest())


def read_content(path: Path) -> tuple[bytes, FileState]:
    """The bytes of a regular file and what it is. Raises OSError as `read_state`."""
    with open_written(path) as file:
        data = file.read()
        status = os.fstat(file.fileno())
    return data, FileState(inode_of(status), len(data), hashlib.sha256(data).hexdigest())


def require_same(path: Path, expected: FileState) -> None:
    """Raise DiffoodError unless the file of this name, read again, is what was written."""
    try:
        same = read_state(path) == expected
    except OSError:
        same = False
    if not same:
        raise changed_since_written(path)


def require_inode(path: Path, descriptor: int) -> None:
    """Raise DiffoodError unless the name still leads to the open file."""
    try:
        same = os.path.samestat(path.lstat(), os.fstat(descriptor))
    except OSError:
        same = False
    if not same:
        raise changed_since_written(path)


def changed_since_written(path: Path) -> DiffoodError:
    """The error that a file differs from what was written."""
    return DiffoodError(
        f"{path} was changed, replaced or removed by something else since it was written. Continue with --resume, "
        "which makes the damaged rows again, or start over with --overwrite."
    )


def inode_of(status: os.stat_result) -> tuple[int, int]:
    """Device and number of a file."""
    return status.st_dev, status.st_ino


class HashedFile(io.RawIOBase):
    """A new file that is hashed while it is written; what it must be is its `state`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.unlink(missing_ok=True)  # a planted link is removed, not followed
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._digest, self._bytes = hashlib.sha256(), 0

    @property
    def state(self) -> FileState:
        """Sync the file to the disk and describe it."""
        os.fsync(self._descriptor)
        return FileState(inode_of(os.fstat(self._descriptor)), self._bytes, self._digest.hexdigest())

    def writable(self) -> bool:
        """See RawIOBase.writable."""
        return True

    def write(self, data: Buffer) -> int:
        """See RawIOBase.write; all of it."""
        view = memoryview(data).cast("B")
        write_all(self._descriptor, view)
        self._digest.update(view)
        self._bytes += len(view)
        return len(view)

    def tell(self) -> int:
        """See RawIOBase.tell."""
        return self._bytes

    def close(self) -> None:
        """See RawIOBase.close."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@contextmanager
def open_written(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file, no link, whose content comes from the disk rather than from memory where Linux can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a FIFO would block for ever
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file")
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        yield file
