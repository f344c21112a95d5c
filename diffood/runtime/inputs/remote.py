"""Lists URLs as items through fsspec: a file, a folder or a pattern on any file system it knows: s3, gs, http, zip."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from diffood.errors import MissingExtraError, RejectedImage, UsageError
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.files import GLOB_CHARACTERS, walk_tree
from diffood.runtime.inputs.items import Item, RefusedItem, describe_error, utf8_name
from diffood.runtime.inputs.labels import LeftOut, without_labels


@dataclass(frozen=True)
class RemoteFile(Item):
    """A file at a URL."""

    url: str

    @property
    def place(self) -> str:
        """The URL."""
        return utf8_name(self.url)

    def read(self, limits: ImageLimits) -> bytes:
        """The bytes of the file. Raises RejectedImage if it cannot be read or is too large."""
        try:
            with open_url(self.url) as file:
                data = file.read(limits.max_bytes + 1)
        except Exception as error:  # each file system has its own
            raise RejectedImage(f"The URL cannot be read ({describe_error(error)}); check that it exists.") from error
        if len(data) > limits.max_bytes:
            raise RejectedImage(f"The file has more bytes than the limit, {limits.max_bytes}; save it smaller.")
        return data


def is_url(name: str) -> bool:
    """Whether a name is a URL of fsspec: protocol://path, or several joined by "::"."""
    return "://" in name


@contextmanager
def open_url(url: str) -> Iterator[BinaryIO]:
    """Open the file at a URL for reading; raises what its file system raises."""
    system, path = _connect(url)  # kept while its file is read: a zip closes with it
    with system.open(path, "rb") as file:
        yield file


def match_urls(url: str) -> list[str] | None:
    """The URL itself if it is a file, those of the files that match it as a pattern, or None if it is a folder.

    Raises UsageError for a URL that names nothing, MissingExtraError if fsspec or a package it needs is missing.
    """
    system, path = _connect(url)
    matches: list[str] = []
    try:
        if GLOB_CHARACTERS & set(path) and not system.exists(path):
            matches = sorted(_full(url, match) for match in system.glob(path) if _is_shown_file(system, match))
        elif system.isfile(path):
            return [url]
        else:
            system.ls(path)
            return None
    except Exception as error:  # each file system has its own
        raise UsageError(
            f"The URL {url!r} cannot be listed ({describe_error(error)}); check it and your access."
        ) from error
    if not matches:
        raise UsageError(f"The pattern {url!r} matches no file; quote it and check the folder.")
    return matches


def list_url(url: str, left_out: LeftOut) -> Iterator[Item]:
    """The files below a folder at a URL, lazily, in the order of a folder on this machine; ids are relative to it.

    Hidden files and labels of images are left out and counted. Links to folders are refused.
    """
    system, path = _connect(url)
    walked = ((name, (name, found, error)) for name, found, error in _walk(system, path, left_out))
    for name, found, error in without_labels(walked, left_out, in_order=True):
        full = _full(url, found)
        yield RemoteFile(utf8_name(name), full) if error is None else _unlisted(name, full, error)


def _full(url: str, path: str) -> str:
    """The URL of a path in the file system of `url`, which may be a chain: zip://inner.png::file:///outer.zip."""
    first, sign, rest = url.partition("::")
    protocol = first.partition("://")[0] + "://"
    return f"{protocol}{path.removeprefix(protocol)}{sign}{rest}"


def require_file_system(url: str) -> None:
    """Raise as `match_urls` does if the file system of a URL cannot be used at all."""
    _connect(url)


def _connect(url: str) -> tuple[Any, str]:
    """(fsspec's file system, path in it)."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError(f"{url!r} is a URL, which needs fsspec: pip install 'diffood[remote]'.") from None
    first, sign, rest = url.partition("::")
    try:
        if not sign:
            return cast(tuple[Any, str], url_to_fs(url))  # fsspec caches its file systems
        system = _chained(f"{first.partition('://')[0]}://{sign}{rest}")
        return system, system._strip_protocol(first)
    except ImportError as error:
        raise MissingExtraError(f"{url!r} needs another package ({describe_error(error)}): pip install it.") from None
    except Exception as error:
        raise UsageError(
            f"The URL {url!r} cannot be used ({describe_error(error)}); check how it is written."
        ) from None


@functools.lru_cache(maxsize=4)
def _chained(container: str) -> Any:
    """The file system inside a file such as a zip, cached: opening it reads its whole directory."""
    from fsspec.core import url_to_fs

    return url_to_fs(container)[0]


def _is_shown_file(system: Any, path: str) -> bool:
    """Whether a match is a file that a local pattern would match too."""
    return not path.rstrip("/").rpartition("/")[2].startswith(".") and not system.isdir(path)


def _unlisted(name: str, url: str, error: Exception) -> Item:
    return RefusedItem(
        utf8_name(name),
        utf8_name(url),
        f"The folder cannot be listed ({describe_error(error)}), so its files have no rows; try again.",
    )


def _walk(system: Any, top: str, left_out: LeftOut) -> Iterator[tuple[str, str, Exception | None]]:
    """(relative name, path, None) of each file below a folder but hidden ones, in the order `files.walk` has."""
    return walk_tree(functools.partial(_entries, system, left_out), top)


def _entries(system: Any, left_out: LeftOut, name: str, folder: str) -> Iterator[tuple[str, str, Exception | None]]:
    try:
        listed = system.ls(folder, detail=True)
    except Exception as error:
        yield name.removesuffix("/") or folder, folder, error
        return
    found: list[tuple[str, str, Exception | None]] = []
    for entry in listed:
        path = str(entry["name"])
        base = path.rstrip("/").rpartition("/")[2]
        if not base or path.rstrip("/") == folder.rstrip("/"):
            continue  # an object store lists a folder's marker among its files
        if base.startswith("."):
            left_out.hidden += 1
            continue
        if entry["type"] != "directory":
            found.append((name + base, path, None))
        elif entry.get("islink"):  # which may be a loop
            found.append((name + base, path, OSError("a link to a folder, which a URL does not follow")))
        else:
            found.append((f"{name}{base}/", path, None))
    yield from sorted(found, key=lambda each: each[0])
