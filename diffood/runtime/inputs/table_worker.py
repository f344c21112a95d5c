"""The child process that reads a Parquet file, so that Arrow's C++ meets hostile bytes here only.

tables.py starts it. For each row it sends a header and the image's bytes.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

from diffood.errors import RejectedImage
from diffood.runtime.child import serve_parent
from diffood.runtime.inputs.items import describe_error
from diffood.runtime.inputs.members import open_regular
from diffood.runtime.inputs.urls import UrlRules, is_url

MEGABYTES = 4096  # beyond Arrow itself; row groups of images have some hundred
ROWS = 16  # read at a time
BUFFER = 2**20  # bytes of a column read at a time, so that a row group need not fit into memory


@dataclass(frozen=True)
class TableRequest:
    """What to read: a path or a URL, its image column and its id column ("" for row numbers), and from which row on."""

    place: str
    image_column: str
    id_column: str
    max_bytes: int
    urls: UrlRules
    first: int = 0

    def as_json(self) -> str:
        """What the process is sent first."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: bytes) -> "TableRequest":
        """Read `as_json`."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "urls": UrlRules(**values["urls"])})


def main() -> None:
    """Take a request, send every row of its table, then a header with `end`: "" or the error that ended it."""
    import pyarrow.compute  # before memory is limited
    import pyarrow.parquet

    pipe = serve_parent(MEGABYTES)
    table = TableRequest.of_json(pipe.recv_bytes())
    try:
        with _open(table) as file, pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER) as parquet:
            for identity, data in itertools.islice(_rows(parquet, table), table.first, None):
                _send(pipe, identity, data)
        pipe.send_bytes(json.dumps({"end": ""}).encode())
    except RejectedImage as error:
        pipe.send_bytes(json.dumps({"end": str(error)}).encode())
    except Exception as error:  # Arrow fails with its own classes, a file system with others
        pipe.send_bytes(json.dumps({"end": describe_error(error)}).encode())


def _open(table: TableRequest) -> AbstractContextManager[BinaryIO]:
    from diffood.runtime.inputs.remote import open_url

    return open_url(table.place, table.urls) if is_url(table.place) else open_regular(Path(table.place))


def _rows(parquet: Any, table: TableRequest) -> Iterator[tuple[str | None, bytes | str]]:
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
