"""Counts the items of inputs in the background, so that a run can say how much is left."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from diffood.errors import DiffoodError
from diffood.runtime.inputs.files import (
    InputNames,
    folder_bases,
    input_names,
    is_folder,
    list_entries,
    named_files,
    open_list,
    walk,
)
from diffood.runtime.inputs.labels import LeftOut, without_labels
from diffood.runtime.inputs.open import STANDARD_INPUT, container_of
from diffood.runtime.inputs.urls import is_url


def count_in_background(inputs: InputNames) -> Callable[[], int | None]:
    """Start to count the items of inputs in a thread; returns a function that gives the number, None until it is known.

    It stays None if only reading would tell: shards, tables, URLs, standard input. An image named twice counts twice:
    the number is for estimates of time, not for rows.
    """
    found: list[int] = []

    def count() -> None:
        total = count_items(inputs)
        if total is not None:
            found.append(total)

    threading.Thread(target=count, daemon=True).start()
    return lambda: found[0] if found else None


def count_items(inputs: InputNames) -> int | None:
    """The number of items in the inputs; None if their names do not tell."""
    inputs = input_names(inputs)
    try:
        counts = [_count(name for name, _, _ in walk(folder)) for folder, _ in folder_bases(inputs).values()]
        counts += [_count_named(name) for name in dict.fromkeys(inputs) if not is_folder(name)]
    except (DiffoodError, OSError, _OnlyReadingTellsError):
        return None
    return sum(counts)


class _OnlyReadingTellsError(Exception):
    """The items of an input are not known from its name."""


def _count_named(name: str) -> int:
    if name == STANDARD_INPUT or is_url(name):
        raise _OnlyReadingTellsError
    if not name.startswith("@"):
        return _count(path.as_posix() for path in named_files(name))
    with open_list(Path(name[1:])) as file:
        return _count(entry if isinstance(entry, str) else "" for entry in list_entries(file))


def _count(names: Iterable[str]) -> int:
    files = 0
    for name in without_labels(((name, name) for name in names), LeftOut()):
        if container_of(name) or is_url(name):
            raise _OnlyReadingTellsError
        files += 1
    return files
