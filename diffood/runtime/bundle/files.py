"""Reads and writes the files of a bundle: bounded, no links followed, records validated, replaced in one move.

Every record carries the hash of its own content as the last field of its file, so that a damaged or edited one is not
taken for what was written. It is no signature: whoever writes the file can write the hash.
"""

import hashlib
import itertools
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel

from diffood.errors import BundleError
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.json_reader import parse_json
from diffood.runtime.printable import escape_json, shell_word
from diffood.runtime.records import explain_invalid

WHOLE_COPY = "copy the bundle again, whole"
MOST_LISTED = 1000  # entries of a folder that is no bundle, looked at for a name to show
MOST_SHOWN = 100  # characters of a path that the system refuses
PIECE = 2**22  # bytes of a large file that are read at a time
MAX_FILE_BYTES = 2**34  # weights of four billion parameters in FP32; a graph's own limit is protobuf's, 2**31
SEAL = "content_sha256"  # the field of a record's file that is not its content

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
    return validate_record(parse_content(data, path, remedy), path, model, remedy)


def parse_content(data: bytes, path: Path, remedy: str = WHOLE_COPY) -> Any:
    """What the bytes that were read from `path` say, its hash not yet checked. Raises BundleError if it is no JSON."""
    with explain_invalid(str(path), remedy, BundleError):
        return parse_json(data)


def validate_record(content: Any, path: Path, model: type[Model], remedy: str = WHOLE_COPY) -> Model:
    """The record that a file says, if its hash is that of its content. Raises BundleError where it is invalid."""
    with explain_invalid(str(path), remedy, BundleError):
        if not isinstance(content, dict):
            return model.model_validate(content)
        fields = _unseal(content)
        record = model.model_validate(fields)
        _require_own_form(record, fields)
        return record


def _require_own_form(record: BaseModel, fields: dict[str, Any]) -> None:
    """Raise ValueError where a file says its record in another way than we write it: true for 1, 1.0 for 1, "1" for 1.

    So a record has one hash, and no other reader of the file understands another value than ours.
    """
    written = parse_json(record.model_dump_json(exclude_unset=True).encode())
    if hash_content(written) != hash_content(fields):
        name = next(
            name for name in fields if hash_content({"": fields[name]}) != hash_content({"": written.get(name)})
        )
        raise ValueError(f"{name}: it is not in the form in which it is written, got {str(fields[name])[:80]!r}")


def _unseal(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a record's file without its hash. Raises ValueError where that is missing or another."""
    fields = {name: value for name, value in content.items() if name != SEAL}
    if SEAL not in content:
        raise ValueError(f"it has no {SEAL}, so an earlier diffood or something else wrote it")
    if (found := hash_content(fields)) != content[SEAL]:
        raise ValueError(f"it was changed after it was written: {SEAL} is not {found[:12]}…, that of its content")
    return fields


def hash_content(fields: dict[str, Any]) -> str:
    """sha256 of a record's fields as JSON in ASCII with sorted keys and no spaces: of what it says, not how."""
    try:
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return hashlib.sha256(text.encode()).hexdigest()


def hash_record(record: BaseModel) -> str:
    """The hash that the file of a record carries."""
    return hash_content(parse_json(record.model_dump_json().encode()))


def write_record(folder: Path, name: str, record: BaseModel) -> Path:
    """Write a JSON record, in one move; returns its path."""
    path = folder / name
    write_durably(path, record_bytes(record))
    return path


def record_bytes(record: BaseModel) -> bytes:
    """A record as the bytes of its file."""
    fields = escape_json(record.model_dump_json(indent=1)).removesuffix("\n}")
    return f'{fields},\n "{SEAL}": "{hash_record(record)}"\n}}\n'.encode()


def require_bundle_folder(path: Path, manifest: str, graph: str) -> None:
    """Raise BundleError for a path that cannot be a bundle; most often it is the folder of images.

    Args:
        path: The folder.
        manifest: Name of the file that every bundle has.
        graph: Name of a graph, which one that lost its manifest still has.
    """
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise BundleError(
            f"{str(path)[:MOST_SHOWN]}… is not a bundle: it cannot be opened ({error.strerror}). Give a shorter path, "
            "or one that you may read."
        ) from None
    if not folder:
        problem = "it is a file" if there else "no such folder"
        raise BundleError(
            f"{path} is not a bundle: {problem}. Make one with `diffood export --output {shell_word(path)}`."
        )
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
