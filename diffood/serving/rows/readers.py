"""Reads rows back from JSON lines, CSV or Parquet, also while they are being written; a file is not trusted."""

import csv
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from diffood.errors import MissingExtraError, UsageError
from diffood.runtime.records import explain_invalid
from diffood.serving.rows.formats import LineFormat
from diffood.serving.rows.parts import JOURNAL, PARTIAL, find_part, own_files
from diffood.serving.rows.row import COLUMNS, Row, Value

MAX_LINE_BYTES = 2**20  # a row has some hundred bytes; the longest path and reason stay below this
BLOCK = 1024  # rows given at a time
MAX_INTERVAL = 86_400.0  # seconds; who looks once a day needs no process that waits

Block = tuple[Row, ...]

# Row's own fields, all of them required and none converted: "1" is no number, 1 no truth.
_FIELDS: Any = {name: (kind, ...) for name, kind in get_type_hints(Row).items()}
_COLUMNS: type[BaseModel] = create_model("Columns", __config__=ConfigDict(strict=True), **_FIELDS)
_REMEDY = "give a file as `diffood serve-batch` writes it"


def read_rows(path: Path) -> Iterator[Block]:
    """Rows of a file in order, in blocks. Raises UsageError naming the file and line that cannot be used.

    The ending tells the format; a folder is one of parts, read in their order. JSON lines may still be being written:
    NAME.jsonl.partial is read up to its last whole line, also where NAME.jsonl was asked for and is not there yet, and
    so is the last part of a folder.
    """
    if path.is_dir():
        return _blocks(_part_rows(path))
    path = _present(path)
    if is_json_lines(path):
        return _blocks(_json_rows(path))
    if path.suffix == ".csv":
        return _blocks(_csv_rows(path))
    if path.suffix == ".parquet":
        return _blocks(_parquet_rows(path))
    raise UsageError(f"{path.name!r} has no known ending: give rows as .jsonl, .csv or .parquet.")


def read_growing(path: Path, kind: LineFormat) -> Iterator[Block]:
    """Rows of a file that a run goes on writing, cut back to whole lines, in blocks."""
    return _blocks(_csv_rows(path) if kind == "csv" else _json_rows(path))


def follow_rows(path: Path, interval: float) -> Iterator[Block]:
    """Rows of growing JSON lines, in blocks, without end; an empty block whenever all that is written was given.

    After an empty block the next one is looked for `interval` seconds later. The renaming of a .partial does no harm.
    Raises UsageError as `read_rows` does, for another format, an impossible interval, and where the file shrinks.
    """
    if not 0 <= interval <= MAX_INTERVAL:  # NaN neither
        raise UsageError(f"The interval is {interval}; it must be between 0 and {MAX_INTERVAL:g} seconds.")
    path = _present(path)
    if not is_json_lines(path):
        raise UsageError(f"{path.name!r} cannot be followed: only .jsonl can be read while it grows.")
    held: list[Row] = []
    with path.open("rb") as file:
        for row in _tail(file, path):
            if row is not None:
                held.append(row)
            if held and (row is None or len(held) == BLOCK):
                yield tuple(held)
                held.clear()
            if row is None:
                yield ()
                time.sleep(interval)


def is_json_lines(path: Path) -> bool:
    """Whether the name says that the file holds JSON lines, whole or still being written."""
    return path.name.removesuffix(PARTIAL).endswith(".jsonl")


def _present(path: Path) -> Path:
    partial = path.with_name(path.name + PARTIAL)
    if not path.exists() and is_json_lines(path) and partial.exists():
        path = partial
    if path.is_file():
        return path
    if path.exists():
        raise UsageError(f"{path} is not a file; {_REMEDY}.")
    waiting = (
        f" yet; {partial.name} is being written, and only .jsonl can be read meanwhile" if partial.exists() else ""
    )
    raise UsageError(f"No such file: {path}{waiting}.")


def _blocks(rows: Iterable[Row]) -> Iterator[Block]:
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) == BLOCK:
            yield tuple(held)
            held.clear()
    if held:
        yield tuple(held)


def _part_rows(folder: Path) -> Iterator[Row]:
    """Rows of all parts; each is looked for when its turn comes, as a run may be writing them."""
    number = 0
    while part := find_part(folder, number):
        try:
            for block in read_growing(part, "jsonl") if part.suffix == PARTIAL else read_rows(part):
                yield from block
        except FileNotFoundError:  # it became whole meanwhile, before a row of it was read
            continue
        number += 1
    parts = own_files(folder)
    if not parts and not (folder / JOURNAL).exists():
        raise UsageError(f"{folder} holds no parts; {_REMEDY}, or a folder of parts.")
    if later := sorted(path.name for path, place in parts.items() if place > number):
        raise UsageError(f"{folder} lacks part {number}, and has {later[-1]}; copy all of it.")


def _tail(file: BinaryIO, path: Path) -> Iterator[Row | None]:
    """Rows of whole lines; None at the end of what is there, with the file at the beginning of a torn line."""
    number = 1
    while True:
        start = file.tell()
        line = file.readline(MAX_LINE_BYTES + 1)
        where = f"{path}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise UsageError(f"{where} has more than {MAX_LINE_BYTES} bytes; {_REMEDY}.")
        if line.endswith(b"\n"):
            number += 1
            yield _json_row(line, where)
            continue
        if os.fstat(file.fileno()).st_size < start:
            raise UsageError(f"{path} became shorter while it was read; start again.")
        file.seek(start)
        yield None


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        number = 1
        for row in _tail(file, path):
            if row is None:
                break
            number += 1
            yield row
        torn = file.read(MAX_LINE_BYTES)
        if torn and path.suffix != PARTIAL:
            yield _json_row(torn, f"{path}, line {number}")


def _json_row(line: bytes, where: str) -> Row:
    try:
        values: Any = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # bytes that are not UTF-8 are a ValueError too
        raise UsageError(f"{where} is not JSON; {_REMEDY}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{where} is not a row but a {type(values).__name__}; {_REMEDY}.")
    return _checked(values, where)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        reader = csv.DictReader(_text_lines(file, path), strict=True)
        try:
            _require_columns(reader.fieldnames or (), f"{path}, line 1")
            for texts in reader:
                where = f"{path}, line {reader.line_num}"
                if None in texts:
                    raise UsageError(f"{where} has more values than columns; {_REMEDY}.")
                yield _checked({name: _csv_value(name, texts[name], where) for name in COLUMNS}, where)
        except csv.Error as error:
            raise UsageError(f"{path}, line {reader.reader.line_num} is not CSV ({error}); {_REMEDY}.") from None


def _text_lines(file: BinaryIO, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UsageError(f"{path}, line {number} has more than {MAX_LINE_BYTES} bytes; {_REMEDY}.")
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise UsageError(f"{path}, line {number} is not UTF-8 text; {_REMEDY}.") from None


def _csv_value(name: str, text: str | None, where: str) -> Value:
    kind = COLUMNS[name]
    if not text and (kind != "text" or name == "class_name"):
        return None  # CSV's empty cell
    if text is None or kind == "text":
        return text
    try:
        if kind == "truth":
            return {"True": True, "False": False}[text]
        return int(text) if kind == "whole" else float(text)
    except (KeyError, ValueError):
        raise UsageError(f"{where}: {name} is {text[:80]!r}, which is no {kind} value; {_REMEDY}.") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("Parquet rows need pyarrow: pip install pyarrow, or serve .jsonl.") from None
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _require_columns(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(BLOCK, columns=list(COLUMNS)):
                for values in batch.to_pylist():
                    number += 1
                    yield _checked(values, f"{path}, row {number}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} is not a readable Parquet file ({reason[:200]!r}); {_REMEDY}.") from None


def _require_columns(names: Iterable[str], where: str) -> None:
    missing = [name for name in COLUMNS if name not in set(names)]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(map(repr, missing))}; {_REMEDY}.")


def _checked(values: dict[str, Any], where: str) -> Row:
    """The one door through which values become a row that the inside trusts."""
    with explain_invalid(where, _REMEDY, UsageError):
        row = Row(**_COLUMNS.model_validate(values).model_dump())
    try:
        "".join((row.id, row.sha256, row.class_name or "")).encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise UsageError(f"{where} holds text that is not Unicode; {_REMEDY}.") from None
    for name in ("score", "p_value", "threshold", "confidence"):
        value = getattr(row, name)
        if value is not None and not math.isfinite(value):
            raise UsageError(f"{where}: {name} is {value}, not a finite number; {_REMEDY}.")
    for name in ("p_value", "confidence"):
        value = getattr(row, name)
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{where}: {name} is {value}, not a share between 0 and 1; {_REMEDY}.")
    if row.status != "rejected":
        if row.threshold is None:
            raise UsageError(f"{where}: status is {row.status!r}, but there is no threshold; {_REMEDY}.")
        if row.score is None and not row.is_ood:
            raise UsageError(f"{where}: there is no score and is_ood is {row.is_ood}; {_REMEDY}.")
    return row
