"""Lists the rows of Parquet files with a column of images as items. A child process reads what the file says.

The child can open nothing: it asks for the file's bytes, and gets no others.
"""

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from diffood.errors import DiffoodError, MissingExtraError
from diffood.runtime.child import INVALID, Child, ChildEnded, ChildNotStarted, ChildSilent, start_patiently
from diffood.runtime.inputs.items import LONGEST_ID, InlineItem, Item, RefusedItem, describe_error
from diffood.runtime.inputs.members import open_regular
from diffood.runtime.inputs.reading import ContainerFormat, ReadOptions
from diffood.runtime.inputs.remote import open_url
from diffood.runtime.inputs.table_worker import MOST_READ, TableRequest
from diffood.runtime.inputs.urls import hide_secrets, is_url
from diffood.runtime.printable import escape_for_terminal

MAGIC = b"PAR1"
LONGEST_REASON = 500  # characters: people read rows
LONGEST_HEADER = 2**20
SECONDS = 600.0  # between two rows; a row group of gigabytes on a slow disk takes minutes


def list_table(place: str, name: str, reading: ReadOptions) -> Iterator[Item]:
    """The rows of a Parquet file, lazily; ids are those of the id column, or `name`/row number from 0.

    If it cannot be read, the rows before the damage are listed, and a refused item with the id `name` says so.
    """
    try:
        require_pyarrow()
    except MissingExtraError as error:  # of a table in a list; one that is named itself was refused before
        yield RefusedItem(name, name, str(error))
        return
    number, tried = 0, -1  # rows that were given, and with how many of them the process ended
    while True:
        try:
            for item in _rows(place, name, number, reading):
                yield item
                number += 1
        except _TableEndedError as end:
            if number == tried or end.by_itself:
                yield refused_table(name, str(end))
                return
            tried = number  # once more from there: it may have been stopped or killed from outside
        else:
            return


class _TableEndedError(Exception):
    """A table, or the process that reads it, ended before its last row; the message is a clause that says why.

    Attributes:
        by_itself: The process said so.
    """

    def __init__(self, why: str, *, by_itself: bool = False) -> None:
        super().__init__(why)
        self.by_itself = by_itself


def _rows(place: str, name: str, first: int, reading: ReadOptions) -> Iterator[Item]:
    """The rows from the first one asked for. Raises _TableEndedError."""
    try:
        with open_url(place, reading.rules.urls) if is_url(place) else open_regular(Path(place)) as file:
            yield from _rows_of(file, name, first, reading)
    except (_TableEndedError, DiffoodError):
        raise
    except Exception as error:  # each file system has its own
        own = error.strerror if isinstance(error, OSError) and not is_url(place) else None
        raise _TableEndedError(own or describe_error(error), by_itself=True) from None


def _rows_of(file: BinaryIO, name: str, first: int, reading: ReadOptions) -> Iterator[Item]:
    rules, limits = reading.rules, reading.limits
    size = file.seek(0, os.SEEK_END)
    request = TableRequest(size, rules.image_column, rules.id_column, limits.max_bytes, first)
    try:
        child = start_patiently(_start)
    except ChildNotStarted as failure:
        raise _TableEndedError(f"the process that reads it did not start: {failure}", by_itself=True) from None
    number = first
    try:
        child.send(request.as_json().encode())
        while True:
            header = _next_header(child, file)
            if "end" in header:
                if header["end"]:
                    raise _TableEndedError(str(header["end"]), by_itself=True)
                return
            where, given, error = f"{name}/{number}", header["id"], str(header["error"])
            number += 1
            yield row_item(where, given, error or child.receive(limits.max_bytes, SECONDS), rules.id_column)
    except (ChildEnded, ChildSilent) as end:
        raise _TableEndedError(f"the process that read it ended: {str(end) or 'no row for minutes'}") from None
    except (KeyError, TypeError):
        raise _TableEndedError(f"the process that read it ended: {INVALID}") from None
    finally:
        child.kill()


def row_item(where: str, given: object, image: bytes | str, id_column: str) -> Item:
    """The item of a row.

    Args:
        where: The table and the row's number.
        given: What its id column says; None without one.
        image: Its bytes, or the reason why there are none.
        id_column: Name of that column; "": ids are `where`.
    """
    identity = _valid(hide_secrets(given)) if isinstance(given, str) and 0 < len(given) <= LONGEST_ID else where
    if isinstance(image, str):
        return RefusedItem(identity, where, image)
    if id_column and identity is where:
        return RefusedItem(where, where, f"The row's {id_column!r} is not an id; use a text or a whole number.")
    return InlineItem(identity, where, image)


def _next_header(child: Child, file: BinaryIO) -> dict[str, Any]:
    """The header of the next row, or of the end. Until then the child asks for bytes of the file, and gets them."""
    last = time.monotonic() + SECONDS
    while True:
        header = child.receive_fields(LONGEST_HEADER, max(0.0, last - time.monotonic()))
        if "read" not in header:
            return header
        match header["read"]:
            case [int(offset), int(count)] if offset >= 0 and 0 < count <= MOST_READ:
                file.seek(offset)
                child.send(file.read(count))
            case _:
                raise ChildEnded(INVALID)


def _start() -> Child:
    child = Child("diffood.runtime.inputs.table_worker")
    child.wait_until_up()
    return child


def require_pyarrow() -> None:
    """Raise MissingExtraError where Parquet cannot be read."""
    if find_spec("pyarrow") is None:
        raise MissingExtraError("Parquet tables need pyarrow, which is not installed: pip install 'diffood[parquet]'.")


PARQUET = ContainerFormat((".parquet",), list_table, lambda file, name: file.read(len(MAGIC)) == MAGIC, require_pyarrow)


def _valid(identity: str) -> str:
    return identity.encode("utf-8", "backslashreplace").decode()


def refused_table(name: str, reason: str) -> RefusedItem:
    """The item that says that a table, or the rest of it, could not be read."""
    reason = escape_for_terminal(reason)[:LONGEST_REASON]  # it may quote names of columns and types
    what = f"The table, or its rest after the last row, cannot be read as Parquet ({reason}); write it again."
    return RefusedItem(name, name, what)
