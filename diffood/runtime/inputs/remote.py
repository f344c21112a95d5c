"""Lists URLs as items through fsspec: a file, a folder or a pattern at any of `urls.PROTOCOLS`, or inside a zip."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from diffood.errors import MissingExtraError, RejectedImage, UsageError
from diffood.runtime.images.decode import ImageLimits, refuse_byte_count
from diffood.runtime.inputs.files import GLOB_CHARACTERS, walk_tree
from diffood.runtime.inputs.forward import ForwardFile
from diffood.runtime.inputs.items import Item, RefusedItem, StoredItem, describe_error, utf8_name
from diffood.runtime.inputs.labels import LeftOut, without_labels
from diffood.runtime.inputs.urls import CHAIN, WEB, UrlRules, hide_secrets, path_of, protocol_of, require_allowed


@dataclass(frozen=True)
class RemoteFile(StoredItem):
    """A file at a URL."""

    url: str
    rules: UrlRules

    @property
    def place(self) -> str:
        """The URL without its secrets; with a number that differs where they do."""
        name = url_name(self.url)
        return name if name == utf8_name(self.url) else f"{name} ({hash(self.url) % 2**32:08x})"

    def read(self, limits: ImageLimits) -> bytes:
        """The bytes of the file. Raises RejectedImage if it cannot be read or is too large."""
        try:
            with open_url(self.url, self.rules) as file:
                data = ForwardFile(file).read(limits.max_bytes + 1)  # a stream gives what has come
        except Exception as error:  # each file system has its own
            raise RejectedImage(f"The URL cannot be read ({describe_error(error)}); check that it exists.") from error
        if len(data) > limits.max_bytes:
            raise RejectedImage(f"The file has more bytes than the limit, {limits.max_bytes}; save it smaller.")
        refuse_byte_count(len(data), limits)
        return data


def url_name(url: str) -> str:
    """A URL as rows and messages have it: valid UTF-8, without secrets."""
    return utf8_name(hide_secrets(url))


@contextmanager
def open_url(url: str, rules: UrlRules) -> Iterator[BinaryIO]:
    """Open the file at a URL for reading; raises what its file system raises."""
    system, path = _connect(url, rules)  # kept while its file is read: a zip closes with it
    try:
        opened = system.open(path, "rb")
    except FileNotFoundError as error:  # fsspec says this of a connection that was refused too
        raise error.__cause__ or error from None
    with opened as file:
        yield file


def match_urls(url: str, rules: UrlRules) -> list[str] | None:
    """The URL itself if it is a file, those of the files that match it as a pattern, or None if it is a folder.

    Raises UsageError for a URL that names nothing, MissingExtraError if fsspec or a package it needs is missing.
    """
    system, path = _connect(url, rules)
    matches: list[str] = []
    try:
        if GLOB_CHARACTERS & set(path_of(url)) and not system.exists(path):
            matches = sorted(_full(url, match) for match in system.glob(path) if _is_shown_file(system, match))
        elif system.isfile(path):
            return [url]
        else:
            system.ls(path)
            return None
    except Exception as error:  # each file system has its own
        raise UsageError(
            f"The URL {hide_secrets(url)!r} cannot be listed ({describe_error(error)}); check it and your access."
        ) from error
    if not matches:
        raise UsageError(f"The pattern {hide_secrets(url)!r} matches no file; quote it and check the folder.")
    return matches


def list_url(url: str, rules: UrlRules, left_out: LeftOut) -> Iterator[Item]:
    """The files below a folder at a URL, lazily, in the order of a folder on this machine; ids are relative to it.

    Hidden files and labels of images are left out and counted. Links to folders are refused.
    """
    system, path = _connect(url, rules)
    walked = ((name, (name, found, error)) for name, found, error in _walk(system, path, left_out))
    for name, found, error in without_labels(walked, left_out, in_order=True):
        full = _full(url, found)
        yield RemoteFile(url_name(name), full, rules) if error is None else _unlisted(name, full, error)


def _full(url: str, path: str) -> str:
    """The URL of a path in the file system of `url`, which may be a chain: zip://inner.png::file:///outer.zip."""
    first, sign, rest = url.partition("::")
    protocol = first.partition("://")[0] + "://"
    return f"{protocol}{path.removeprefix(protocol)}{sign}{rest}"


def require_file_system(url: str, rules: UrlRules) -> None:
    """Raise as `match_urls` does if the file system of a URL cannot be used at all."""
    _connect(url, rules)


def _connect(url: str, rules: UrlRules) -> tuple[Any, str]:
    """(fsspec's file system, path in it)."""
    require_allowed(url, rules)
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError(
            f"{hide_secrets(url)!r} is a URL, which needs fsspec: pip install 'diffood[remote]'."
        ) from None
    first, sign, rest = url.partition("::")
    try:
        if not sign:
            return cast(tuple[Any, str], url_to_fs(url, **_options(url, rules)))  # fsspec caches its file systems
        system = _chained(f"{protocol_of(first)}://{sign}{rest}", rules)
        return system, system._strip_protocol(first)
    except ImportError as error:
        raise MissingExtraError(
            f"{hide_secrets(url)!r} needs another package ({describe_error(error)}): pip install it."
        ) from None
    except Exception as error:
        raise UsageError(
            f"The URL {hide_secrets(url)!r} cannot be used ({describe_error(error)}); check how it is written."
        ) from None


@functools.lru_cache(maxsize=4)
def _chained(container: str, rules: UrlRules) -> Any:
    """The file system inside a file such as a zip, cached: opening it reads its whole directory."""
    from fsspec.core import url_to_fs

    return url_to_fs(container, **_options(container.partition(CHAIN)[2], rules))[0]


def _options(url: str, rules: UrlRules) -> dict[str, Any]:
    """What fsspec is told about the protocol of a URL."""
    protocol = protocol_of(url)
    if protocol not in WEB:
        return {}
    from diffood.runtime.inputs.addresses import http_options

    return {protocol: http_options(private=rules.private, listed=rules.listed)}


def _is_shown_file(system: Any, path: str) -> bool:
    """Whether a match is a file that a local pattern would match too."""
    return not path.rstrip("/").rpartition("/")[2].startswith(".") and not system.isdir(path)


def _unlisted(name: str, url: str, error: Exception) -> Item:
    return RefusedItem(
        url_name(name),
        url_name(url),
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
