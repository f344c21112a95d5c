"""Lists files, folders, globs and lists on this machine as items with stable ids, in a stable order."""

import codecs
import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, Union

from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import is_bundle
from diffood.runtime.inputs.items import utf8_name
from diffood.runtime.inputs.labels import LeftOut, is_hidden_name

Place = TypeVar("Place")
Failure = TypeVar("Failure", bound=Exception)

InputNames = Union[str, "os.PathLike[str]", Iterable[Union[str, "os.PathLike[str]"]]]

GLOB_CHARACTERS = frozenset("*?[")
LONGEST_LINE = 2**16  # bytes of a line in a list: sixteen times Linux's PATH_MAX, room for a signed URL


@dataclass(frozen=True)
class RefusedLine:
    """A line of a list that has more than `LONGEST_LINE` bytes; its number from 1."""

    number: int

    @property
    def reason(self) -> str:
        """Why it is refused."""
        return f"The line has more than {LONGEST_LINE} bytes; write one path per line."


def input_names(inputs: InputNames) -> tuple[str, ...]:
    """The inputs as text: one that was given alone is not taken for a sequence of letters."""
    if isinstance(inputs, (str, os.PathLike)):
        return (os.fspath(inputs),)
    return tuple(os.fspath(name) for name in inputs)


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
    """The file of this name, or the files that match it as a pattern, sorted. Raises UsageError if there are none.

    The files below a folder that matches do match, and links to folders are treated as in `walk`.
    """
    if os.path.lexists(name):
        return [Path(name)]
    if not GLOB_CHARACTERS & set(name):
        raise UsageError(f"No such file or folder: {name}")
    parts = Path(name).as_posix().split("/")
    if "**" in parts and not any(part.startswith(".") for part in parts[parts.index("**") :]):
        files = _match_below("/".join(parts[: parts.index("**")]), parts[parts.index("**") :], root=name[0] == "/")
    else:
        matches = [Path(match) for match in glob.glob(name, recursive=True)]  # noqa: PTH207 - takes absolute patterns
        files = [file for match in matches for file in (_files_below(match) if match.is_dir() else [match])]
    if not files:
        raise UsageError(f"The pattern {name!r} matches no file; quote it and check the folder.")
    return sorted(set(files))


def _match_below(top: str, parts: Sequence[str], *, root: bool) -> list[Path]:
    """The files below the folders `top` names that match a pattern which begins with "**"."""
    tops = glob.glob(top) if top else ["/" if root else "."]  # noqa: PTH207 - takes absolute patterns
    return [
        file
        for folder in map(Path, tops)
        for file in (_files_below(folder) if folder.is_dir() else [])
        if path_matches(file.relative_to(folder).parts, parts)
    ]


def _files_below(folder: Path) -> list[Path]:
    return [path for _, path, _ in walk(folder)]


def path_matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path, or of a folder above it, match those of a pattern."""
    if not pattern or pattern[0] == "**":
        rest = pattern[1:]
        return not rest or path_matches(parts, rest) or (bool(parts) and path_matches(parts[1:], pattern))
    return bool(parts) and fnmatch.fnmatch(parts[0], pattern[0]) and path_matches(parts[1:], pattern[1:])


def open_list(path: Path) -> BinaryIO:
    """Open a list of paths, one per line. Raises UsageError if it cannot be read."""
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"The list {path} cannot be read ({error.strerror}).") from None


def lies_below(path: str, folder: str) -> bool:
    """Whether a real path is another one, or is found below it without being hidden."""
    if path == folder:
        return True
    below = os.path.join(folder, "")  # noqa: PTH118 - "/" must not become "//"
    return path.startswith(below) and not is_hidden_name(path.removeprefix(below).replace(os.sep, "/"))


def list_entries(file: BinaryIO) -> Iterator[str | RefusedLine]:
    """The entries of a list, lazily; a line that is too long to be a path is refused."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        entry = list_entry(line, number)
        if entry:
            yield entry
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)


def list_entry(line: bytes, number: int) -> str | RefusedLine:
    """A line as an entry of a list, "" for an empty one. Only newlines end a line: names may have rarer separators.

    A byte order mark before the first line is not part of it.
    """
    if len(line) > LONGEST_LINE:
        return RefusedLine(number)
    entry = os.fsdecode(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip("\r\n")
    return entry if entry.strip() else ""


def walk(
    folder: Path, left_out: LeftOut | None = None, outputs: Sequence[str] = ()
) -> Iterator[tuple[str, Path, OSError | None]]:
    """(relative name, path, None) of each file below a folder but hidden ones, sorted by name.

    A folder's name sorts as if it ended in "/". A folder that cannot be listed comes itself, with the error. Links to
    folders are followed, each folder once: a link to one that is walked anyway is passed over, and one to a folder that
    is walked already by another link, or that contains the folder itself or one of `outputs`, comes with an error.
    """
    walker = _Walker(folder, left_out or LeftOut(), outputs)
    return walk_tree(walker.entries, folder)


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


def why_unlisted(error: OSError) -> str:
    """Why a folder that `walk` gives with an error has no rows for its files."""
    if not error.errno:
        return f"The link is not followed: {error.strerror}."
    said = f"The folder cannot be listed ({error.strerror})"
    return f"{said}, so its files have no rows; check its permissions and try again."


class _Walker:
    """Lists the folders of one walk, and knows which ones links have led to."""

    def __init__(self, top: Path, left_out: LeftOut, outputs: Sequence[str]) -> None:
        self._top, self._left_out, self._outputs = os.path.realpath(top), left_out, outputs
        self._linked: dict[str, str] = {}  # real path of each folder that was walked because of a link: its name here
        self._links: set[str] = set()  # the names of the links themselves

    def entries(self, name: str, folder: Path) -> Iterator[tuple[str, Path, OSError | None]]:
        """As `walk`, of one folder; a folder in it has a name that ends in "/"."""
        found: list[str] = []  # names as they sort, as small as may be: a folder may have millions
        folders: dict[str, bool | None] = {}  # None for what needs no look at links, else if it is one
        on_disk: dict[str, str] = {}  # names that are not as they are shown
        below_link = any(name[: end + 1] in self._links for end, letter in enumerate(name) if letter == "/")
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        self._left_out.hidden += 1
                        continue
                    text = utf8_name(entry.name)
                    if text != entry.name:
                        on_disk[text] = entry.name
                    if _is_folder(entry):
                        text, is_link = text + "/", entry.is_symlink()
                        folders[text] = is_link if is_link or below_link else None
                    found.append(text)
        except OSError as error:
            yield name.removesuffix("/") or utf8_name(folder.name), folder, error
            return
        found.sort()
        for text in found:  # in order, since the first of two links is followed
            shown, by_link = text.removesuffix("/"), folders.get(text)
            path = folder / on_disk.get(shown, shown)
            if by_link is None:
                yield name + text, path, None
            else:
                yield from self._by_link(name + text, path, by_link)

    def _by_link(self, name: str, folder: Path, is_link: bool) -> Iterator[tuple[str, Path, OSError | None]]:
        """A folder to which a link leads, or which is below one: to be walked, an error, or nothing."""
        real = os.path.realpath(folder)
        if self._is_walked_anyway(real):
            return
        if self._top.startswith(os.path.join(real, "")):  # noqa: PTH118 - "/" must not become "//"
            yield name[:-1], folder, OSError(0, "it is a link to a folder that contains the one given")
            return
        if any(lies_below(output, real) for output in self._outputs):
            yield name[:-1], folder, OSError(0, "it is a link to a folder that this run writes to")
            return
        known = self._linked.setdefault(real, name)
        if known == name:
            if is_link:
                self._links.add(name)
            yield name, folder, None
        elif not name.startswith(known):  # otherwise a loop
            yield name[:-1], folder, OSError(0, f"its files have their rows below {known!r}, which is the same folder")

    def _is_walked_anyway(self, real: str) -> bool:
        """Whether a folder is the one given, or below it without being hidden."""
        relative = os.path.relpath(real, self._top).replace(os.sep, "/")
        return relative == "." or not (relative.partition("/")[0] == ".." or is_hidden_name(relative))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links or a folder without permission: reading it says which
        return False
