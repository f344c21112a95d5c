"""Places of results: checked before hours of work, without leaving anything behind, and filled whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


def is_free(path: Path) -> bool:
    """Whether a new folder may be put there: nothing is, or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill beside `path`, in whose place it is put at the end; after an error nothing of it is left.

    At the end, `path` must be free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o755)  # who reads it may be another user
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
