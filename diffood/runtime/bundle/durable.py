"""Files that are whole or absent, after a crash too."""

import os
from pathlib import Path


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it; a disk that fills up takes a part first and raises OSError then."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_durably(path: Path, data: bytes) -> os.stat_result:
    """Write a file so that after a crash, too, there is the old one or the new one; returns what it is."""
    partial = path.with_name(f".{path.name}.tmp")
    partial.unlink(missing_ok=True)  # a link planted there is not followed
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
        status = os.fstat(descriptor)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    partial.replace(path)
    sync(path.parent)
    return status


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
