"""Checks, before hours of work, that its results can be written where they are wanted. Leaves nothing behind."""

import os
import shutil
import tempfile
from pathlib import Path

from diffood.errors import UsageError


def require_writable(path: Path, option: str, *, folder: bool = False, needed: int = 0) -> None:
    """Check that a file or a folder can be written at a path, by making a nameless file in the nearest folder there is.

    Args:
        path: Of the file or folder; neither it nor the folders above it need exist.
        option: What names it, for the message: "--output".
        folder: Whether it is to be a folder.
        needed: Bytes that will be written, at least.

    Raises:
        UsageError: Something else is there, the place may not be written to, or has too little space.

    """
    if os.path.lexists(path) and path.is_dir() != folder:
        kind = "a folder; name a file" if path.is_dir() else "not a folder; name another one"
        raise UsageError(f"{option} {path} is {kind}.")
    if not folder and os.path.lexists(path) and os.access(path, os.W_OK):
        return  # a log that is appended to, a device
    place = path if folder else path.parent
    while not os.path.lexists(place):
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UsageError(
            f"{option} {path} cannot be written, as nothing can be in {place} ({error.strerror}); choose another place."
        ) from None
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UsageError(
            f"{option} {path} needs at least {needed / 1e6:.0f} MB, and {place} has {free / 1e6:.0f} MB free: free "
            "some space, or choose another place."
        )
