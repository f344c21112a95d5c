"""The child process that reads a Parquet file, so that Arrow's C++ meets hostile bytes here only.

tables.py starts it, and reads the file's bytes for it, since this process can open nothing. It asks for bytes by a
header with `read`; for each row it sends a header and the image's bytes.
"""

import io
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from diffood.errors import RejectedImage
from diffood.runtime.child import serve_parent
from diffood.runtime.inputs.items import describe_error
from diffood.runtime.json_reader import parse_object

MEGABYTES = 4096  # beyond Arrow itself; row groups of images have some hundred
ROWS = 16  # read at a time
BUFFER = 2**20  # bytes of a column read at a time, so that a row group need not fit into memory
MOST_READ = 2**24  # bytes asked for at a time


@dataclass(frozen=True)
class TableRequest:
    """What to read: a file of so many bytes, its image and id columns ("": row numbers), and from which row on."""

    size: int
    image_column: str
    id_column: str
    max_bytes: int
    first: int = 0

    def as_json(self) -> str:
        """What the process is sent first."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: bytes) -> "TableRequest":
        """Read `as_json`."""
        return cls(**parse_object(text))


def main() -> None:
    """Take a request, send every row of its table, then a header with `end`: "" or the error that ended it."""
    import pyarrow.compute  # before memory is limited
    import pyarrow.parquet

    pipe = serve_parent(MEGABYTES)
    table = TableRequest.of_json(pipe.recv_bytes())
    try:
        file = _ParentsFile(pipe, table.size)
        with pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER) as parquet:
            for identity, data in itertools.islice(read_rows(parquet, table), table.first, None):
                _send(pipe, identity, data)
        pipe.send_bytes(json.dumps({"end": ""}).encode())
    except RejectedImage as error:
        pipe.send_bytes(json.dumps({"end": str(error)}).encode())
    except Exception as error:  # Arrow fails with its own classes
        pipe.send_bytes(json.dumps({"end": describe_error(error)}).encode())


class _ParentsFile(io.RawIOBase):
    """A file that the parent reads, piece by piece."""

    def __init__(self, pipe: Connection, size: int) -> None:
        self._pipe, self._size, self._position = pipe, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int = -1) -> bytes:
        wanted = max(0, self._size - self._position)
        wanted = wanted if count < 0 else min(count, wanted)
        pieces = []
        while wanted > 0:
            self._pipe.send_bytes(json.dumps({"read": [self._position, min(wanted, MOST_READ)]}).encode())
            piece = self._pipe.recv_bytes()
            if not piece:
                break
            pieces.append(piece)
            self._position += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)


def read_rows(parquet: Any, table: TableRequest) -> Iterator[tuple[str | None, bytes | str]]:
    """(id or None, image bytes or the reason why there are none) of every row."""
    import pyarrow as pa
    from pyarrow import compute

    schema = parquet.schema_arrow
    wanted = [table.image_column, *([table.id_column] if table.id_column else [])]
    for column in wanted:
        if schema.names.count(column) != 1:
            raise RejectedImage(f"it has no column {column!r}, only {', '.join(schema.names[:20])}")
    kind = schema.field(table.image_column).type
    inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(inner) or pa.types.is_large_binary(inner)):
        raise RejectedImage(f"its column {table.image_column!r} has the type {kind}, neither bytes nor {{bytes, path}}")
    for batch in parquet.iter_batches(ROWS, columns=wanted, use_threads=False):
        images = batch.column(table.image_column)
        if inner is not kind:
            images = compute.struct_field(images, "bytes")  # null where the struct is
        names = batch.column(table.id_column) if table.id_column else [None] * len(batch)
        for image, name in zip(images, names, strict=True):
            yield _identity(name), _image(image, table.max_bytes)


def _identity(value: Any) -> str | None:
    try:
        found = None if value is None else value.as_py()
    except (ValueError, OverflowError):  # text that is not UTF-8 among them
        return None
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def _image(value: Any, max_bytes: int) -> bytes | str:
    if not value.is_valid:
        return "The row has no image bytes; store them in the table."
    size = value.as_buffer().size
    if size > max_bytes:
        return f"The image has {size} bytes and the limit is {max_bytes}; save it smaller, or raise the limit."
    return bytes(value.as_buffer())


def _send(pipe: Connection, identity: str | None, data: bytes | str) -> None:
    header = {"id": identity, "error": data if isinstance(data, str) else ""}
    pipe.send_bytes(json.dumps(header).encode())
    if isinstance(data, bytes):
        pipe.send_bytes(data)
