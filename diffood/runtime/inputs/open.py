"""Opens all inputs that verbs take: as one lazy stream of items, or as a list to go through more than once."""

import contextlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.inputs.archives import TAR
from diffood.runtime.inputs.distinct import distinct
from diffood.runtime.inputs.files import (
    InputNames,
    RefusedLine,
    folder_bases,
    input_names,
    is_folder,
    lies_below,
    list_entries,
    named_files,
    open_list,
    refuse_bundle,
    walk,
    why_unlisted,
)
from diffood.runtime.inputs.items import InlineItem, Item, LocalFile, Pause, RefusedItem, describe_error, utf8_name
from diffood.runtime.inputs.labels import is_image_name, without_labels
from diffood.runtime.inputs.members import open_regular
from diffood.runtime.inputs.reading import DEFAULT_RULES, ContainerFormat, InputRules, ReadOptions
from diffood.runtime.inputs.remote import RemoteFile, list_url, match_urls, require_file_system, url_name
from diffood.runtime.inputs.shuffling import shuffled
from diffood.runtime.inputs.spool import Spool
from diffood.runtime.inputs.tables import PARQUET
from diffood.runtime.inputs.urls import hide_secrets, is_url, path_of
from diffood.runtime.inputs.watch import read_lines, watch_folder
from diffood.runtime.inputs.zips import ZIP

log = logging.getLogger(__name__)
STANDARD_INPUT = "-"


CONTAINERS: tuple[ContainerFormat, ...] = (PARQUET, ZIP, TAR)
"""Kinds of files that contain several images. A new kind is a module with a ContainerFormat, and a line here."""


def container_of(name: str) -> ContainerFormat | None:
    """The kind of container that a file of this name should be, None if it should be a single image."""
    return next((container for container in CONTAINERS if container.matches(name)), None)


def container_at(path: Path) -> ContainerFormat | None:
    """The kind of container that a file is by its contents, or else by its name; None for a single image.

    Only the first bytes are read, and none of a file whose name ends like an image's.
    """
    if is_image_name(path.name):
        return None
    with contextlib.suppress(OSError, ValueError), open_regular(path) as file:  # ValueError: a name with a NUL
        for container in CONTAINERS:
            file.seek(0)
            if container.recognises(file, path.name):
                return container
    return container_of(path.name)


def open_inputs(inputs: InputNames, reading: ReadOptions) -> Iterator[Item | Pause]:
    """Items of all inputs, lazily: folders, files, globs, @lists, "-", shards, tables, URLs; a watched folder last.

    Inputs come in the order given: a folder or glob sorted by id, a list by lines, a shard by members, a table by
    rows. A place that is given twice is listed once. If two places share an id, the second item is refused. With
    `shuffle` everything is listed first. Live inputs pause, and a file that was replaced since is another item.

    Raises:
        UsageError: An input names nothing.
        MissingExtraError: A URL without fsspec, a Parquet table without pyarrow.

    What goes wrong later is an item that is refused.
    """
    inputs = input_names(inputs)
    bases = folder_bases(inputs)
    streams = _streams(inputs, reading, bases)
    items = itertools.chain.from_iterable(streams)
    lone_folder = len(streams) == 1 and bool(bases) and not reading.done and not reading.rules.id_column
    live = bool(reading.watch) or STANDARD_INPUT in inputs
    found = distinct(items, reading, live=live, files_are_distinct=lone_folder)
    if reading.shuffle:
        if live:
            raise UsageError("--shuffle lists all inputs first, and --watch and - have no end; leave one of them out.")
        found = shuffled(found)
    if live or reading.done:
        return found
    first = next(found, None)
    if first is None:
        raise _nothing_in(inputs, reading)
    return itertools.chain([first], found)


def list_inputs(inputs: InputNames, rules: InputRules = DEFAULT_RULES) -> list[Item]:
    """All items of all inputs, sorted by id, for a verb that goes through them more than once.

    Standard input is read once, here. Bytes that come with a listing (of compressed shards, tables and remote shards)
    are kept in a temporary file. What is left out on purpose is logged as information.

    Raises:
        UsageError: An input names nothing, nothing in them can be used, or two places share an id.
        MissingExtraError: A URL without fsspec, a Parquet table without pyarrow.
        DiffoodError: No space for the temporary file.
    """
    inputs, reading = input_names(inputs), ReadOptions(rules=rules)
    spool = Spool()
    found: dict[str, Item] = {}
    for item in itertools.chain.from_iterable(_streams(inputs, reading, folder_bases(inputs))):
        if isinstance(item, Pause):
            continue
        other = found.setdefault(item.id, item)
        if other.place != item.place:
            raise UsageError(
                f"{other.place} and {item.place} would both have the id {item.id!r}; give the folder above both, or "
                "each its own id."
            )
        if other is item and isinstance(item, InlineItem):
            found[item.id] = spool.keep(item)
    refused = [item for item in found.values() if isinstance(item, RefusedItem)]
    if found and len(refused) == len(found):
        raise UsageError(f"Nothing in {_named(inputs)} can be used. {refused[0].reason}")
    if not found:
        raise _nothing_in(inputs, reading)
    if left_out := reading.left_out.describe():
        log.info("left out    %s of %s", left_out, _named(inputs))
    return [found[identity] for identity in sorted(found)]


def _named(inputs: Sequence[str]) -> str:
    return ", ".join(map(hide_secrets, inputs))


def _nothing_in(inputs: Sequence[str], reading: ReadOptions) -> UsageError:
    left_out = reading.left_out.describe()
    but = f" but {left_out}" if left_out else ""
    return UsageError(f"No files in {_named(inputs)}{but}; name a folder with images in it.")


def _streams(
    inputs: Sequence[str], reading: ReadOptions, bases: dict[str, tuple[Path, str]]
) -> list[Iterator[Item | Pause]]:
    unlisted = dict(bases)
    streams = [_open(name, reading, unlisted) for name in dict.fromkeys(inputs)]
    if reading.watch:
        refuse_bundle(reading.watch.folder)
        streams.append(watch_folder(reading.watch, reading.stop, reading.outputs))
    if not streams:
        raise UsageError("No INPUT: name files, folders, 'globs', @lists, shards, tables or URLs, or use --watch.")
    return streams


def _open(name: str, reading: ReadOptions, unlisted: dict[str, tuple[Path, str]]) -> Iterator[Item | Pause]:
    if name == STANDARD_INPUT:
        return _entries(read_lines(reading.stop), STANDARD_INPUT, Path(), reading)
    if is_folder(name):
        refuse_bundle(Path(name))
        folder = unlisted.pop(os.path.realpath(name), None)  # missing if it was given before, written differently
        return _folder(*folder, reading) if folder else iter(())
    if container := container_of(path_of(name)) if is_url(name) else container_at(Path(name)):
        container.require()
    if name.startswith("@"):
        return _list(open_list(Path(name[1:])), Path(name[1:]), reading)
    if is_url(name) and not os.path.lexists(name):
        return _url(name, reading)
    named = ((path.as_posix(), path) for path in named_files(name))
    files = without_labels(((written, (written, path)) for written, path in named), reading.left_out, in_order=True)
    return itertools.chain.from_iterable(_expand(utf8_name(written), path, reading) for written, path in files)


def _folder(folder: Path, base: str, reading: ReadOptions) -> Iterator[Item]:
    """The files below a folder, in the order of their ids; a folder that cannot be listed is a refused item.

    In memory are the names of one folder and of the folders above it.
    """
    walked = ((name, (name, path, error)) for name, path, error in walk(folder, reading.left_out, reading.outputs))
    for name, path, error in without_labels(walked, reading.left_out, in_order=True):
        if error is None:
            yield from _expand(base + name, path, reading)
        else:
            yield RefusedItem(base + name, utf8_name(os.fspath(path)), why_unlisted(error))


def _expand(identity: str, path: Path, reading: ReadOptions) -> Iterator[Item]:
    """The file itself, or the items in it if it is a container."""
    container = container_at(path)
    if container is None:
        return iter([LocalFile(identity, path)])
    return container.list_items(os.fspath(path), identity, reading)


def _url(url: str, reading: ReadOptions) -> Iterator[Item]:
    rules = reading.rules.urls
    urls = match_urls(url, rules)
    if urls is None:
        return list_url(url, rules, reading.left_out)
    return itertools.chain.from_iterable(_expand_url(match, reading) for match in urls)


def _expand_url(url: str, reading: ReadOptions) -> Iterator[Item]:
    identity = url_name(url)
    container = container_of(path_of(url))
    if container:
        return container.list_items(url, identity, reading)
    return iter([RemoteFile(identity, url, reading.rules.urls)])


def _list(file: BinaryIO, path: Path, reading: ReadOptions) -> Iterator[Item | Pause]:
    with file:
        yield from _entries(list_entries(file), f"@{utf8_name(path.as_posix())}", path.parent, reading)


def _entries(
    entries: Iterable[str | RefusedLine | Pause], name: str, folder: Path, reading: ReadOptions
) -> Iterator[Item | Pause]:
    """The items of a list, in the order of its lines; a line that cannot be used is a refused item."""
    listed = replace(reading.rules, urls=replace(reading.rules.urls, listed=True))
    reading = replace(reading, rules=listed)
    named = ((entry if isinstance(entry, str) else "", entry) for entry in entries)
    try:
        for entry in without_labels(named, reading.left_out):
            if isinstance(entry, Pause):
                yield entry
            elif isinstance(entry, RefusedLine):
                yield RefusedItem(f"{name}:{entry.number}", f"{name}:{entry.number}", entry.reason)
            else:
                yield from _entry_or_refusal(entry, folder, reading)
    except (DiffoodError, OSError) as error:
        yield RefusedItem(name, name, f"The list, or its rest after the last row, cannot be read: {error}.")


def _entry_or_refusal(entry: str, folder: Path, reading: ReadOptions) -> Iterator[Item]:
    """The items of a line; whatever goes wrong with it is a row, and does not end the list."""
    identity, empty = url_name(entry) if is_url(entry) else utf8_name(entry), True
    try:
        for item in _entry(entry, folder, reading):
            empty = False
            yield item
    except Exception as error:  # each file system has its own
        reason = f"The line, or its rest after the last row, cannot be read ({describe_error(error)}); check it."
        yield RefusedItem(identity, identity, reason)
        return
    if empty and is_folder(os.fspath(folder / entry)):
        yield RefusedItem(identity, identity, "The folder has no files but hidden ones; name one with images in it.")


def _entry(entry: str, folder: Path, reading: ReadOptions) -> Iterator[Item]:
    entry = entry if _exists(folder / entry) else entry.strip()
    path = folder / entry
    if is_url(entry) and not _exists(path):
        try:
            require_file_system(entry, reading.rules.urls)
        except DiffoodError as error:
            return iter([RefusedItem(url_name(entry), url_name(entry), str(error))])
        return _expand_url(entry, reading)
    identity = utf8_name(Path(entry).as_posix())
    if not is_folder(os.fspath(path)):
        return _expand(identity, path, reading)
    if any(lies_below(output, os.path.realpath(path)) for output in reading.outputs):
        return iter([RefusedItem(identity, identity, "This run writes into the folder; write its outputs elsewhere.")])
    return _folder(path, f"{identity}/", reading)


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a name with a NUL
        return False
