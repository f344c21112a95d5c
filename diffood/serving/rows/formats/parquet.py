"""Rows as Parquet, through pyarrow."""

from collections.abc import Iterable, Iterator, Sequence
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from diffood.errors import MissingExtraError, UsageError
from diffood.serving.rows.checked import REMEDY, check_row, require_columns
from diffood.serving.rows.formats.base import TableFormat
from diffood.serving.rows.row import COLUMNS, Row

ROWS_READ = 1024  # rows in memory at a time


class Parquet(TableFormat):
    """One row group per part, typed columns."""

    name = "parquet"

    def require(self) -> None:
        """See RowFormat.require."""
        _pyarrow()

    def encode(self, rows: Sequence[Row]) -> bytes:
        """See RowFormat.encode."""
        pa, pq = _pyarrow()
        buffer, schema = pa.BufferOutputStream(), _schema(pa)
        with pq.ParquetWriter(buffer, schema) as writer:
            if rows:
                writer.write_table(pa.Table.from_pylist([row.values() for row in rows], schema=schema))
        return bytes(buffer.getvalue())

    def merge(self, parts: Iterable[bytes], file: RawIOBase) -> None:
        """See RowFormat.merge."""
        pa, pq = _pyarrow()
        with pq.ParquetWriter(file, _schema(pa)) as writer:
            for part in parts:
                writer.write_table(pq.read_table(pa.BufferReader(part)))

    def read_file(self, file: BinaryIO, path: Path) -> Iterator[Row]:
        """See RowFormat.read_file."""
        pa, pq = _pyarrow()
        number = 0
        try:
            with pq.ParquetFile(file) as table:
                require_columns(table.schema_arrow.names, str(path))
                for batch in table.iter_batches(ROWS_READ, columns=list(COLUMNS)):
                    for values in batch.to_pylist():
                        number += 1
                        yield check_row(values, f"{path}, row {number}")
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"{path} is not a readable Parquet file ({reason[:200]!r}); {REMEDY}.") from None


def _schema(pa: Any) -> Any:
    types = {"string": pa.string(), "float": pa.float64(), "int": pa.int64(), "bool": pa.bool_()}
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError(
            "Parquet rows need pyarrow, which is not installed: pip install 'diffood[parquet]', or use .jsonl "
            "(--format jsonl for a folder of parts)."
        ) from None
    return pa, pq
