"""Rows as JSON Lines. The only format that can be read while another process appends to it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from diffood.errors import UsageError
from diffood.runtime.json_reader import parse_object
from diffood.runtime.printable import escape_json
from diffood.runtime.records import explain_invalid
from diffood.serving.rows.checked import MAX_LINE_BYTES, REMEDY, check_row
from diffood.serving.rows.formats.base import LineFormat
from diffood.serving.rows.row import Row

PARTIAL = ".partial"
"""Ending of a file that is still being written."""
_encode = json.JSONEncoder(ensure_ascii=False).encode


class JsonLines(LineFormat):
    """One JSON object per line."""

    name = "jsonl"

    def encode_row(self, row: Row) -> bytes:
        """See LineFormat.encode_row."""
        return (escape_json(_encode(row.values())) + "\n").encode()

    def read_file(self, file: BinaryIO, path: Path) -> Iterator[Row]:
        """See RowFormat.read_file. A torn last line is skipped where the name ends in .partial."""
        number = 1
        for row in tail_rows(file, path):
            if row is None:
                break
            number += 1
            yield row
        torn = file.read(MAX_LINE_BYTES)
        if torn and path.suffix != PARTIAL:
            yield _parse(torn, f"{path}, line {number}")


def tail_rows(file: BinaryIO, path: Path) -> Iterator[Row | None]:
    """Rows of complete lines, without end; None whenever none is left, with the file before any torn line."""
    number = 1
    while True:
        start = file.tell()
        line = file.readline(MAX_LINE_BYTES + 1)
        where = f"{path}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise UsageError(f"{where} has more than {MAX_LINE_BYTES} bytes; {REMEDY}.")
        if line.endswith(b"\n"):
            number += 1
            yield _parse(line, where)
            continue
        if file.seek(0, os.SEEK_END) < start:
            raise UsageError(f"{path} became shorter while it was read; start again.")
        file.seek(start)
        yield None


def _parse(line: bytes, where: str) -> Row:
    with explain_invalid(where, REMEDY, UsageError):
        values = parse_object(line)
    return check_row(values, where)
