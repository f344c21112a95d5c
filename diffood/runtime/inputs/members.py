"""What archives of any kind share: ids of members, refusals, and a file on disk that must stay as it was listed."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from diffood.errors import RejectedImage
from diffood.runtime.images.opening import open_patiently
from diffood.runtime.inputs.items import LONGEST_ID, RefusedItem, utf8_name

Stamp = tuple[int, int, int]
"""Size, time and inode of an archive when it was listed."""


def member_name(name: str, number: int) -> str:
    """The name of member `number`, as text: never used as a path; without "./", as folders have none."""
    text = utf8_name("/".join(part for part in name.split("/") if part not in ("", ".")))
    return text if len(text) <= LONGEST_ID else f"{text[:100]}…#{number}"


def refused_shard(name: str, reason: str) -> RefusedItem:
    """The item that says that a shard, or the rest of it, could not be read."""
    return RefusedItem(
        name,
        name,
        f"The shard, or its rest after the last row, cannot be read ({reason}); copy it again from its source.",
    )


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file; OSError for others, since a FIFO would block. The name may be another file meanwhile."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # each is missing on one platform
    if not path.is_file():  # before it is opened: opening a device can act on it
        raise OSError(0, "it is missing or not a regular file")
    file = os.fdopen(open_patiently(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "it is not a regular file any more")
    return file


def stamp_of(file: BinaryIO) -> Stamp:
    """The stamp of an open file."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino


@contextmanager
def open_unchanged(path: Path, stamp: Stamp) -> Iterator[BinaryIO]:
    """Open an archive again. Raises RejectedImage if it has changed since it was listed, or cannot be read."""
    try:
        with open_regular(path) as file:
            if stamp_of(file) != stamp:
                raise RejectedImage("The shard was changed after it was listed; try again once it is written.")
            yield file
    except OSError as error:
        raise RejectedImage(f"The shard can no longer be read ({error.strerror}); check it.") from error
