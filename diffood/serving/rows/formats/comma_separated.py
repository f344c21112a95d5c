"""Rows as CSV with a header line, which spreadsheets and terminals take for text.

A cell of text that begins with an apostrophe is guarded: what follows is the inside of a JSON string. Guarded are cells
that a spreadsheet may take for a formula, that hold characters which act or are hidden, or begin with an apostrophe.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from diffood.errors import UsageError
from diffood.runtime.json_reader import parse_json
from diffood.runtime.printable import escape_json, is_hidden
from diffood.serving.rows.checked import MAX_LINE_BYTES, REMEDY, check_row, require_columns
from diffood.serving.rows.formats.base import LineFormat
from diffood.serving.rows.row import COLUMNS, CellValue, Row

GUARD = "'"
_BEGINS = "=+\\-@⁺₊﬩﹢＋⁼₌⩵⩶﹦＝﹣－−﹫＠"  # a formula, in some spreadsheet; in a regular expression's set
# At the beginning; or where a spreadsheet that separates cells by semicolons would begin one.
_FORMULA = re.compile(rf"""(?:^|;)[\s"']*[{_BEGINS}]""")
_INNER_FORMULA = re.compile(rf"""(?<=;)([\s"'\\]*)([{_BEGINS}])""")


def guard_cell(text: str) -> str:
    """A text as it stands in a cell; `read_cell` gives it back."""
    if not (text.startswith(GUARD) or _FORMULA.search(text) or any(map(is_hidden, text))):
        return text
    inside = escape_json(json.dumps(text, ensure_ascii=False))[1:-1]
    return GUARD + _INNER_FORMULA.sub(lambda found: f"{found[1]}\\u{ord(found[2]):04x}", inside)


def read_cell(cell: str) -> str:
    """The text of a cell. Raises ValueError for a guarded one that is no JSON string."""
    return str(parse_json(f'"{cell[1:]}"'.encode())) if cell.startswith(GUARD) else cell


class CommaSeparated(LineFormat):
    """One line per row; None is an empty cell."""

    name = "csv"

    @property
    def header(self) -> bytes:
        """See LineFormat.header."""
        return _encode(list(COLUMNS))

    def encode_row(self, row: Row) -> bytes:
        """See LineFormat.encode_row."""
        return _encode([guard_cell(value) if isinstance(value, str) else value for value in row.values().values()])

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
    if text is None:
        return text
    try:
        if kind == "string":
            return read_cell(text)
        if kind == "bool":
            return {"True": True, "False": False}[text]
        return int(text) if kind == "int" else float(text)
    except (KeyError, ValueError):
        raise UsageError(f"{where}: {name} is {text[:80]!r}, not a valid {kind}; {REMEDY}.") from None
