"""Lists files, folders, globs and lists on this machine as items with stable ids, in a stable order."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import is_bundle
from diffood.runtime.inputs.items import Item, LocalFile, RefusedItem, utf8_name

Place = TypeVar("Place")
Failure = TypeVar("Failure", bound=Exception)

GLOB_CHARACTERS = frozenset("*?[")
LONGEST_LINE = 2**16  # bytes of a line in a list: sixteen times Linux's PATH_MAX, room for a signed URL


def folder_bases(inputs: Sequence[str]) -> dict[str, tuple[Path, str]]:
    """Each folder among the inputs once, by its real path: the folder as written, and the beginning of its ids."""
    folders = {os.path.realpath(name): Path(name) for name in sorted(inputs, reverse=True) if is_folder(name)}
    if len(folders) == 1:
        return {real: (folder, "") for real, folder in folders.items()}
    names = Counter(Path(real).name for real in folders)
    return {
        real: (folder, utf8_name(Path(real).name if names[Path(real).name] == 1 else folder.as_posix()) + "/")
        for real, folder in folders.items()
    }


def refuse_bundle(folder: Path) -> None:
    """Raise UsageError for a folder that is a bundle: its files are no images."""
    if is_bundle(folder):
        raise UsageError(f"{folder} is a bundle, not a folder of images; were BUNDLE and the images swapped?")


def is_folder(name: str) -> bool:
    """Whether this names a folder; never raises."""
    return os.path.isdir(name)  # noqa: PTH112 - Path's raises for names that are too long


def named_files(name: str) -> list[Path]:
    """The file of this name, or the files that match it as a pattern, sorted. Raises UsageError if there are none."""
    if os.path.lexists(name):
        return [Path(name)]
    if not GLOB_CHARACTERS & set(name):
        raise UsageError(f"No such file or folder: {name}")
    matches = [Path(match) for match in glob.glob(name, recursive=True)]  # noqa: PTH207 - takes absolute patterns
    files = sorted(match for match in matches if not match.is_dir())
    if not files:
        raise UsageError(f"The pattern {name!r} matches no file; quote it and check the folder.")
    return files


def open_list(path: Path) -> BinaryIO:
    """Open a list of paths, one per line. Raises UsageError if it cannot be read."""
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"The list {path} cannot be read ({error.strerror}).") from None


def list_entries(file: BinaryIO, name: str) -> Iterator[str]:
    """The entries of a list, lazily. Only newlines end a line, as names may contain rarer separators.

    Raises UsageError at a line that is too long to be a path.
    """
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise UsageError(f"A line of {name} has more than {LONGEST_LINE} bytes; write one path per line.")
        if entry := os.fsdecode(line).strip():
            yield entry


def list_folder(folder: Path, base: str) -> Iterator[Item]:
    """The files below a folder, in the order of their ids; a folder that cannot be listed is a refused item.

    In memory are the names of one folder and of the folders above it.
    """
    for name, path, error in walk(folder):
        if error is None:
            yield LocalFile(base + name, path)
        else:
            yield RefusedItem(
                base + name,
                utf8_name(os.fspath(path)),
                f"The folder cannot be listed ({error.strerror}), so its files have no rows; check its "
                "permissions and try again.",
            )


def walk(folder: Path) -> Iterator[tuple[str, Path, OSError | None]]:
    """(relative name, path, None) of each file below a folder but hidden ones, sorted by name.

    A folder's name sorts as if it ended in "/". Links to folders are not followed, since they may be loops. A folder
    that cannot be listed comes itself, with the error.
    """
    return walk_tree(_entries, folder)


def walk_tree(
    entries_of: Callable[[str, Place], Iterator[tuple[str, Place, Failure | None]]], top: Place
) -> Iterator[tuple[str, Place, Failure | None]]:
    """Walk a tree in the order of `entries_of(relative name, folder)`, which ends the names of folders in "/"."""
    levels = [entries_of("", top)]
    while levels:
        for name, place, error in levels[-1]:
            if name.endswith("/"):
                levels.append(entries_of(name, place))
                break
            yield name, place, error
        else:
            levels.pop()


def _entries(name: str, folder: Path) -> Iterator[tuple[str, Path, OSError | None]]:
    """As `walk`, of one folder; a folder in it has a name that ends in "/"."""
    found: list[tuple[str, Path]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                is_folder = _is_folder(entry)
                if not (is_folder and entry.is_symlink()):
                    found.append((name + utf8_name(entry.name) + ("/" if is_folder else ""), folder / entry.name))
    except OSError as error:
        yield name.removesuffix("/") or utf8_name(folder.name), folder, error
        return
    found.sort()
    yield from ((text, path, None) for text, path in found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links or a folder without permission: reading it says which
        return False
