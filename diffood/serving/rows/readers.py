"""Reads rows back from a file or a folder of parts, also while a run is still writing them."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from diffood.errors import UsageError
from diffood.serving.rows.checked import REMEDY
from diffood.serving.rows.formats.base import RowFormat
from diffood.serving.rows.formats.json_lines import PARTIAL, tail_rows
from diffood.serving.rows.formats.registry import ENDINGS, JSON_LINES, format_of
from diffood.serving.rows.parts import JOURNAL, find_part, list_parts
from diffood.serving.rows.row import Row

BLOCK = 1024  # rows per block
MAX_INTERVAL = 86_400.0  # seconds; who looks once a day needs no process that waits

RowBlock = tuple[Row, ...]


def read_rows(path: Path) -> Iterator[RowBlock]:
    """Rows of a file or folder in order, in blocks.

    JSON Lines may still be written: NAME.jsonl.partial is read up to its last complete line, also where NAME.jsonl was
    asked for and does not exist yet; the same is true of the last part of a folder.

    Args:
        path: A file, whose ending tells the format, or a folder of parts, which are read in their order.

    Raises:
        UsageError: The path or a line cannot be used; the message names the file and line.
    """
    if path.is_dir():
        return _blocks(_read_parts(path))
    path = _find_file(path)
    return _blocks(_format(path).read(path))


def follow_rows(path: Path, interval: float) -> Iterator[RowBlock]:
    """Rows of a growing JSON Lines file in blocks, without end.

    An empty block follows whenever all rows were given; the next block is then looked for `interval` seconds later.
    That the run renames its .partial file does no harm.

    Raises:
        UsageError: As `read_rows`, for another format, an impossible interval, and where the file becomes shorter.
    """
    if not 0 <= interval <= MAX_INTERVAL:  # NaN neither
        raise UsageError(f"The interval is {interval}; it must be between 0 and {MAX_INTERVAL:g} seconds.")
    path = _find_file(path)
    if not _is_json_lines(path):
        raise UsageError(f"{path.name!r} cannot be followed: only .jsonl can be read while it grows.")
    held: list[Row] = []
    with path.open("rb") as file:
        for row in tail_rows(file, path):
            if row is not None:
                held.append(row)
            if held and (row is None or len(held) == BLOCK):
                yield tuple(held)
                held.clear()
            if row is None:
                yield ()
                time.sleep(interval)


def _format(path: Path) -> RowFormat:
    found = JSON_LINES if _is_json_lines(path) else format_of(path)
    if found is None:
        raise UsageError(f"{path.name!r} has no known ending: give rows as one of {ENDINGS}.")
    return found


def _is_json_lines(path: Path) -> bool:
    """Whether the name says JSON Lines, complete or still being written."""
    return path.name.removesuffix(PARTIAL).endswith(f".{JSON_LINES.name}")


def _find_file(path: Path) -> Path:
    """The file, or the unfinished one in its place."""
    partial = path.with_name(path.name + PARTIAL)
    if not path.exists() and _is_json_lines(path) and partial.exists():
        path = partial
    if path.is_file():
        return path
    if path.exists():
        raise UsageError(f"{path} is not a file; {REMEDY}.")
    waiting = (
        f" yet; {partial.name} is being written, and only .jsonl can be read meanwhile" if partial.exists() else ""
    )
    raise UsageError(f"No such file: {path}{waiting}.")


def _blocks(rows: Iterable[Row]) -> Iterator[RowBlock]:
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) == BLOCK:
            yield tuple(held)
            held.clear()
    if held:
        yield tuple(held)


def _read_parts(folder: Path) -> Iterator[Row]:
    """Rows of all parts; each part is looked for when its turn comes, as a run may be writing them."""
    number = 0
    while part := find_part(folder, number):
        try:
            yield from _format(part).read(part)
        except FileNotFoundError:  # the open part was completed meanwhile, before a row of it was read
            continue
        number += 1
    parts = list_parts(folder)
    if not parts and not (folder / JOURNAL).exists():
        raise UsageError(f"{folder} holds no parts; {REMEDY}, or a folder of parts.")
    if later := sorted(path.name for path, place in parts.items() if place > number):
        raise UsageError(f"{folder} lacks part {number}, and has {later[-1]}; copy all of it.")
