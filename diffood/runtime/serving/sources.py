"""Turns what a user names (files, folders, globs, @lists) into an ordered list of files with stable ids."""

import glob
import os
from collections import Counter
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

    A folder gives all files below it but hidden ones; with several folders, ids start with the folder's name, or with
    its path as written where two have one name. A file or glob gives ids as written. @FILE gives the lines of a list,
    relative to the list's folder; a listed file that is missing becomes a refused row later. Raises UsageError for an
    input that names nothing and for two files with one id.
    """
    found: dict[str, Source] = {}
    for source in _expand_all(inputs):
        other = found.setdefault(source.id, source)
        if not _same(other.path, source.path):
            raise UsageError(
                f"{other.path} and {source.path} would both be called {source.id!r}; give the folder above both."
            )
        found[source.id] = min(other, source)
    if not found:
        raise UsageError(f"No files in {', '.join(inputs) or 'no inputs'}; name a folder with images in it.")
    return sorted(found.values())


def _expand_all(inputs: Sequence[str]) -> Iterator[Source]:
    folders = {os.path.realpath(name): Path(name) for name in sorted(inputs, reverse=True) if _is_folder(name)}
    names = Counter(Path(real).name for real in folders)
    for real, folder in folders.items():
        base = ""
        if len(folders) > 1:
            name = Path(real).name
            base = _text(name if names[name] == 1 else folder.as_posix()) + "/"
        for file in _walk(folder):
            yield Source(base + _text(file.relative_to(folder).as_posix()), file)
    for name in inputs:
        if not _is_folder(name):
            yield from _expand_files(name)


def _is_folder(name: str) -> bool:
    return os.path.isdir(name)  # noqa: PTH112 - Path's raises for names that are too long


def _same(one: Path, other: Path) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)  # noqa: PTH100 - Path's follows links


def _expand_files(name: str) -> Iterator[Source]:
    path = Path(name)
    if name.startswith("@"):
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
        lines = os.fsdecode(path.read_bytes()).split("\n")  # splitlines would also cut names at rarer characters
    except OSError as error:
        raise UsageError(f"The list {path} cannot be read ({error.strerror}).") from None
    for line in lines:
        if line.strip():
            yield Source(_text(Path(line.strip()).as_posix()), path.parent / line.strip())


def _walk(folder: Path) -> Iterator[Path]:
    """Every entry below a folder that is not a folder and not hidden; links to folders are not followed (loops).

    A folder that cannot be listed is an entry itself, so that its files are not left out silently.
    """
    closed: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(root, name)
    yield from closed


def _text(name: str) -> str:
    r"""The name as valid UTF-8: bytes that are not become \xNN and \ becomes \\, so that two names never meet."""
    return os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
