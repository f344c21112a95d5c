"""Turns what a user names (files, folders, globs, @lists) into an ordered list of files with stable ids."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import UsageError

_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True, order=True)
class Source:
    """One file to score. id: the path relative to the folder given, as UTF-8 text; path: where to read it."""

    id: str
    path: Path


def expand_inputs(inputs: Sequence[str]) -> list[Source]:
    """List every file that the inputs name, sorted by id, so that their order does not matter.

    A folder gives all regular files below it but hidden ones; with several folders, ids start with the folder's
    name. A file or glob gives ids as written. @FILE gives the lines of a list, relative to the list's folder; a
    listed file that is missing becomes a refused row later. Raises UsageError for an input that names nothing.
    """
    folders = [name for name in inputs if Path(name).is_dir()]
    found: dict[tuple[str, str], Source] = {}
    for name in inputs:
        for source in _expand(name, prefix=len(folders) > 1):
            found[source.id, os.fspath(source.path)] = source
    if not found:
        raise UsageError(f"No files in {', '.join(inputs) or 'no inputs'}; name a folder with images in it.")
    return sorted(found.values())


def _expand(name: str, *, prefix: bool) -> Iterator[Source]:
    path = Path(name)
    if path.is_dir():
        base = f"{path.resolve().name}/" if prefix else ""
        for file in _walk(path):
            yield Source(base + _text(file.relative_to(path).as_posix()), file)
    elif name.startswith("@"):
        yield from _read_list(Path(name[1:]))
    elif os.path.lexists(path):
        yield Source(_text(path.as_posix()), path)
    elif _GLOB_CHARACTERS & set(name):
        matches = [Path(match) for match in glob.glob(name, recursive=True)]  # noqa: PTH207 - takes absolute patterns
        files = [match for match in matches if not match.is_dir()]
        if not files:
            raise UsageError(f"The pattern {name!r} matches no file; quote it and check the folder.")
        yield from (Source(_text(match.as_posix()), match) for match in files)
    else:
        raise UsageError(f"No such file or folder: {name}")


def _read_list(path: Path) -> Iterator[Source]:
    try:
        lines = os.fsdecode(path.read_bytes()).splitlines()
    except OSError as error:
        raise UsageError(f"The list {path} cannot be read ({error.strerror}).") from None
    for line in lines:
        if line.strip():
            yield Source(_text(Path(line.strip()).as_posix()), path.parent / line.strip())


def _walk(folder: Path) -> Iterator[Path]:
    """Every entry below a folder that is not a folder and not hidden; links to folders are not followed (loops)."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(root, name)


def _text(name: str) -> str:
    r"""The name as valid UTF-8: bytes that are not become \xNN, so that two names never meet."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
