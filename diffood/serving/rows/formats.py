"""Rows as bytes of JSON lines, CSV or Parquet: the same rows are the same bytes. Knows nothing of runs."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from diffood.errors import MissingExtraError
from diffood.serving.rows.row import COLUMNS, Row

Format = Literal["jsonl", "csv", "parquet"]
LineFormat = Literal["jsonl", "csv"]  # what can be appended to, a row at a time
FORMATS: tuple[Format, ...] = get_args(Format)


def require_format(kind: Format) -> None:
    """MissingExtraError where a format's library is not installed; asked before the work."""
    if kind == "parquet":
        _pyarrow()


def head(kind: LineFormat) -> bytes:
    """What stands before the first row."""
    return _csv_line(list(COLUMNS)) if kind == "csv" else b""


def line(row: Row, kind: LineFormat) -> bytes:
    """One row, its end of line included."""
    values = row.values()
    if kind == "csv":
        return _csv_line(list(values.values()))
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def whole(rows: Sequence[Row], kind: Format) -> bytes:
    """A file of some rows, which fit into memory."""
    if kind != "parquet":
        return head(kind) + b"".join(line(row, kind) for row in rows)
    pa, pq = _pyarrow()
    buffer = pa.BufferOutputStream()
    schema = _schema(pa)
    with pq.ParquetWriter(buffer, schema) as writer:
        if rows:
            writer.write_table(pa.Table.from_pylist([row.values() for row in rows], schema=schema))
    return bytes(buffer.getvalue())


def merge_parquet(parts: Iterable[Path], path: Path) -> None:
    """Write the rows of all parts into one Parquet file, a row group a part."""
    pa, pq = _pyarrow()
    with pq.ParquetWriter(path, _schema(pa)) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part, partitioning=None))


def _csv_line(values: list[Any]) -> bytes:
    text = io.StringIO(newline="")
    # All text is quoted: before Python 3.13 a name with a bare carriage return would otherwise break its row.
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(values)
    return text.getvalue().encode()


def _schema(pa: Any) -> Any:
    types = {"text": pa.string(), "real": pa.float64(), "whole": pa.int64(), "truth": pa.bool_()}
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("Parquet output needs pyarrow: pip install pyarrow, or write .jsonl.") from None
    return pa, pq
