"""Files that may be replaced under their names: each version is an item of its own."""

import os
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import LocalFile

VersionStamp = tuple[int, int, int, int]
"""Size, time, inode and time of change; only the last one tells of bytes written in place with the time put back."""


@dataclass(frozen=True, order=True)
class FileVersion(LocalFile):
    """A file as it was when it was listed.

    Attributes:
        stamp: What it was then; None if there was no such file.
    """

    stamp: VersionStamp | None

    def read(self, limits: ImageLimits) -> bytes:
        """The bytes of the file. Raises RejectedImage, too, if it is another one by now."""
        data = super().read(limits)
        if stamp_at(self.path) != self.stamp:
            raise RejectedImage(
                "The file was replaced or changed after it was listed, before it was read; write each image under a "
                "name of its own."
            )
        return data


def stamp_at(path: Path) -> VersionStamp | None:
    """The stamp of the file at a path, of a link itself where it leads nowhere; None if there is nothing."""
    for follow in (True, False):
        try:
            status = os.stat(path, follow_symlinks=follow)  # noqa: PTH116 - Path's of Python 3.10 raises less evenly
        except (OSError, ValueError):  # ValueError: a name with a NUL
            continue
        return status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns
    return None
