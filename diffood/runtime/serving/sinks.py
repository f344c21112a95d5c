"""Writes rows as JSON lines, CSV or Parquet; the file appears whole or not at all."""

import csv
import errno
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import Self

from diffood.errors import DiffoodError, MissingExtraError, UsageError
from diffood.runtime.serving.rows import COLUMNS, Row

PARQUET_GROUP = 10_000  # rows held before a group is written


class _Format(Protocol):
    def write(self, row: Row) -> None: ...
    def close(self) -> None: ...


class Sink:
    """A context manager over one output file; leaving it by an error removes what was written.

    The ending chooses the format: .jsonl, .csv, .parquet. Raises UsageError for another, DiffoodError where the
    folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in _FORMATS:
            raise UsageError(f"Output {path.name!r} has no known ending: use one of {', '.join(_FORMATS)}.")
        self.path, self._partial = path, path.with_name(path.name + ".partial")

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._format: _Format = _FORMATS[self.path.suffix](self._partial)
        except OSError as error:
            raise self._refusal(error) from None
        return self

    def write(self, row: Row) -> None:
        """Append one row. Raises DiffoodError where the disk is full or gone."""
        try:
            self._format.write(row)
        except OSError as error:
            raise self._refusal(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._format.close()
            if kind is None:
                self._partial.replace(self.path)
        except OSError as failure:
            if kind is None:
                raise self._refusal(failure) from None
        finally:
            self._partial.unlink(missing_ok=True)

    def _refusal(self, error: OSError) -> DiffoodError:
        return DiffoodError(f"Cannot write {self.path} ({error.strerror or error}); choose another --output.")


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def write(self, row: Row) -> None:
        self._file.write(json.dumps(row.values(), ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _Csv:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        # All text is quoted: before Python 3.13 a name with a bare carriage return would otherwise break its row.
        self._writer = csv.DictWriter(self._file, list(COLUMNS), lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        self._writer.writeheader()

    def write(self, row: Row) -> None:
        self._writer.writerow(row.values())

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingExtraError("Parquet output needs pyarrow: pip install pyarrow, or write .jsonl.") from None
        types = {"text": pa.string(), "real": pa.float64(), "whole": pa.int64(), "truth": pa.bool_()}
        self._schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
        self._make_table: Any = pa.Table.from_pylist
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, row: Row) -> None:
        self._rows.append(row.values())
        if len(self._rows) == PARQUET_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._make_table(self._rows, schema=self._schema))
            self._rows.clear()

    def close(self) -> None:
        self._flush()
        self._writer.close()


_FORMATS: dict[str, type[_JsonLines] | type[_Csv] | type[_Parquet]] = {
    ".jsonl": _JsonLines,
    ".csv": _Csv,
    ".parquet": _Parquet,
}
