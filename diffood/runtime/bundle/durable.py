"""Files that are whole or absent, after a crash too."""

import contextlib
import os
from pathlib import Path


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it; a disk that fills up takes a part first and raises OSError then."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_durably(path: Path, data: bytes) -> os.stat_result:
    """Write a file so that after a crash, too, there is the old one or the new one; returns what it is."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        return write_durably_in(folder, path.name, data)
    finally:
        os.close(folder)


def write_durably_in(folder: int, name: str, data: bytes) -> os.stat_result:
    """As `write_durably`, in an open folder, whatever has its path by now."""
    partial = f".{name}.tmp"
    _remove(folder, partial)  # a link planted there is not followed
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
        status = os.fstat(descriptor)
    except BaseException:
        _remove(folder, partial)
        raise
    finally:
        os.close(descriptor)
    os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
    return status


def _remove(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
