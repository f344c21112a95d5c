"""Parquet tables: a stranger's names of columns, types and ids. Arrow itself has a process of its own."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from oracle import LIMITS, require_message

from diffood.errors import RejectedImage
from diffood.runtime.inputs.items import describe_error
from diffood.runtime.inputs.table_worker import TableRequest, read_rows
from diffood.runtime.inputs.tables import refused_table, row_item

TYPES = (pa.binary(), pa.large_binary(), pa.string(), pa.int64(), pa.struct([("bytes", pa.binary())]), pa.null())


def use(data: bytes) -> None:
    """Make a table of these names, types and values, and read it as one of images."""
    kinds, *names = data.split(b"\n")
    texts = [name.decode("utf-8", "replace") for name in names[:8]]
    if not texts:
        return
    kinds = kinds.ljust(len(texts), b"\0")
    arrays = [_column(TYPES[kind % len(TYPES)], data) for kind, _ in zip(kinds, texts, strict=False)]
    stream = io.BytesIO()
    pq.write_table(pa.table(arrays, names=texts), stream)
    size = stream.tell()
    request = TableRequest(size, texts[0], texts[kinds[-1] % len(texts)] if kinds[-1] & 1 else "", LIMITS.max_bytes)
    try:
        with pq.ParquetFile(stream) as parquet:
            for number, (identity, image) in enumerate(read_rows(parquet, request)):
                item = row_item(f"table/{number}", identity, image, request.id_column)
                item.id.encode()
    except (RejectedImage, pa.ArrowException, ValueError) as error:  # as the process does
        require_message(refused_table("table", str(error) or describe_error(error)).reason)


def _column(kind: pa.DataType, data: bytes) -> pa.Array:
    values = [data[:20], None, data[-20:]]
    if pa.types.is_struct(kind):
        values = [{"bytes": value} for value in values]
    elif pa.types.is_string(kind):
        values = [None if value is None else value.decode("utf-8", "replace") for value in values]
    elif not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        values = [None if pa.types.is_null(kind) or value is None else len(value) for value in values]
    return pa.array(values, kind)
