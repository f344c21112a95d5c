"""Rows as CSV with a header line."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from diffood.errors import UsageError
from diffood.serving.rows.checked import MAX_LINE_BYTES, REMEDY, check_row, require_columns
from diffood.serving.rows.formats.base import LineFormat
from diffood.serving.rows.row import COLUMNS, CellValue, Row


class CommaSeparated(LineFormat):
    """One line per row, unless a string in it contains a line break; None is an empty cell."""

    name = "csv"

    @property
    def header(self) -> bytes:
        """See LineFormat.header."""
        return _encode(list(COLUMNS))

    def encode_row(self, row: Row) -> bytes:
        """See LineFormat.encode_row."""
        return _encode(list(row.values().values()))

    def read_file(self, file: BinaryIO, path: Path) -> Iterator[Row]:
        """See RowFormat.read_file."""
        reader = csv.DictReader(_lines(file, path), strict=True)
        try:
            require_columns(reader.fieldnames or (), f"{path}, line 1")
            for texts in reader:
                where = f"{path}, line {reader.line_num}"
                if None in texts:
                    raise UsageError(f"{where} has more values than columns; {REMEDY}.")
                yield check_row({name: _parse(name, texts[name], where) for name in COLUMNS}, where)
        except csv.Error as error:
            raise UsageError(f"{path}, line {reader.reader.line_num} is not CSV ({error}); {REMEDY}.") from None


def _encode(values: Sequence[Any]) -> bytes:
    text = io.StringIO(newline="")
    # All strings are quoted: before Python 3.13 a name with a bare carriage return would otherwise break its row.
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(values)
    return text.getvalue().encode()


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UsageError(f"{path}, line {number} has more than {MAX_LINE_BYTES} bytes; {REMEDY}.")
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise UsageError(f"{path}, line {number} is not UTF-8 text; {REMEDY}.") from None


def _parse(name: str, text: str | None, where: str) -> CellValue:
    kind = COLUMNS[name]
    if not text and (kind != "string" or name == "class_name"):
        return None  # an empty cell
    if text is None or kind == "string":
        return text
    try:
        if kind == "bool":
            return {"True": True, "False": False}[text]
        return int(text) if kind == "int" else float(text)
    except (KeyError, ValueError):
        raise UsageError(f"{where}: {name} is {text[:80]!r}, not a valid {kind}; {REMEDY}.") from None
