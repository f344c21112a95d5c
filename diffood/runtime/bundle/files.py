"""Reads and writes the files of a bundle: bounded, no links followed, records validated, replaced in one move."""

import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import BaseModel

from diffood.errors import BundleError
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.records import explain_invalid

WHOLE_COPY = "copy the bundle again, whole"
MOST_LISTED = 1000  # entries of a folder that is no bundle, looked at for a name to show
PIECE = 2**22  # bytes of a large file that are read at a time
MAX_FILE_BYTES = 2**34  # weights of four billion parameters in FP32; a graph's own limit is protobuf's, 2**31

Model = TypeVar("Model", bound=BaseModel)


def read_record(folder: Path, name: str, model: type[Model], *, limit: int, remedy: str = WHOLE_COPY) -> Model:
    """Read and validate a JSON record.

    Args:
        folder: Folder of the file.
        name: Name of the file.
        model: Class of the record.
        limit: Largest allowed size of the file in bytes.
        remedy: What the user can do about a damaged file; ends the error message.

    Raises:
        BundleError: The file is missing, a link, no regular file, too large or invalid.

    """
    return parse_record(read_regular(folder, name, limit, remedy), folder / name, model, remedy)


def parse_record(data: bytes, path: Path, model: type[Model], remedy: str = WHOLE_COPY) -> Model:
    """Validate the bytes that were read from `path`. Raises BundleError where they are invalid."""
    with explain_invalid(str(path), remedy, BundleError):
        return model.model_validate_json(data)


def write_record(folder: Path, name: str, record: BaseModel) -> Path:
    """Write a JSON record, in one move; returns its path."""
    path = folder / name
    write_durably(path, record_bytes(record))
    return path


def record_bytes(record: BaseModel) -> bytes:
    """A record as the bytes of its file."""
    return (record.model_dump_json(indent=1) + "\n").encode()


def require_bundle_folder(path: Path, manifest: str, graph: str) -> None:
    """Raise BundleError for a path that cannot be a bundle; most often it is the folder of images.

    Args:
        path: The folder.
        manifest: Name of the file that every bundle has.
        graph: Name of a graph, which one that lost its manifest still has.
    """
    if not path.is_dir():
        problem = "it is a file" if path.exists() else "no such folder"
        raise BundleError(f"{path} is not a bundle: {problem}. Make one with `diffood export --output {path}`.")
    if os.path.lexists(path / manifest):
        return
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in itertools.islice(entries, MOST_LISTED))
    if graph not in names:
        holds = f", and holds {names[0]!r}" if names else ", and is empty"
        raise BundleError(
            f"{path} is not a bundle: it has no {manifest}{holds}. BUNDLE is the folder that `diffood export` made; "
            "were BUNDLE and the images swapped?"
        )


def plain_folder(parent: Path, name: str) -> Path:
    """A folder inside a bundle, which need not exist. Raises BundleError where it is a link or not a folder."""
    folder = parent / name
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BundleError(
            f"{folder} is a link or not a folder; a bundle holds plain folders and files only: remove it."
        )
    return folder


def read_regular(folder: Path, name: str, limit: int, remedy: str = WHOLE_COPY) -> bytes:
    """Read folder/name, refusing links and anything but a regular file of at most `limit` bytes. Raises BundleError."""
    with open_regular(folder, name, limit, remedy) as file:
        size = os.fstat(file.fileno()).st_size  # not `limit`: read() sets aside as much memory as it is asked for
        return file.read(min(size, limit))


@contextmanager
def open_regular(folder: Path, name: str, limit: int, remedy: str = WHOLE_COPY) -> Iterator[BinaryIO]:
    """Open folder/name for reading, refusing what read_regular refuses. Raises BundleError."""
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise BundleError(f"{path} cannot be opened ({error.strerror}); {remedy}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a regular file; a bundle holds plain files only: {remedy}.")
        if status.st_size > limit:
            raise BundleError(f"{path} has {status.st_size} bytes where at most {limit} are allowed; {remedy}.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_pieces(file: BinaryIO, limit: int) -> Iterator[bytes]:
    """The bytes of a file in pieces, `limit` of them at most: it may grow while it is read."""
    while limit > 0 and (piece := file.read(min(limit, PIECE))):
        limit -= len(piece)
        yield piece
