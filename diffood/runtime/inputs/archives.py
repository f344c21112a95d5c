"""Lists the members of tar shards as items, without extracting to disk. A shard is not trusted.

Only headers are read here. The members of a plain tar are read at their offsets when they are decoded. A compressed
or remote shard can only be read from its beginning, so its members' bytes come with the listing. Links, devices and
sparse members are refused; names are never used as paths.
"""

import contextlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, refuse_byte_count
from diffood.runtime.inputs.forward import ForwardFile, decompressed
from diffood.runtime.inputs.items import InlineItem, Item, RefusedItem, StoredItem, describe_error, utf8_name
from diffood.runtime.inputs.labels import is_hidden_name, is_label_name, without_labels
from diffood.runtime.inputs.members import (
    Stamp,
    member_name,
    open_regular,
    open_unchanged,
    refused_shard,
    stamp_of,
)
from diffood.runtime.inputs.reading import ContainerFormat, ReadOptions
from diffood.runtime.inputs.remote import open_url
from diffood.runtime.inputs.urls import is_url

HEADER_BYTES = 2**20
"""Limit of one member's headers: long names and PAX records take hundreds, and tarfile reads them whole."""
SKIPPED_BYTES = 4 * 2**30
"""Limit of bytes that are unpacked in a shard and are not of members: a bomb of zeros costs seconds, not hours."""
MOST_EXTRA, EXTRA_PER_IMAGE = 100_000, 100
"""Limit of members that are no items, folders, hidden files and labels: so many, and so many more for each item."""
UNUSED_END = 2**26
"""Limit of zeros after the end mark of a plain tar: tar pads to 10 kB, and a sparse file has any number for nothing."""


@dataclass(frozen=True)
class TarMember(StoredItem):
    """A member of a plain tar on disk, as it was when it was listed."""

    path: Path
    offset: int
    size: int
    stamp: Stamp

    @property
    def place(self) -> str:
        """The shard and the offset in it."""
        return f"{utf8_name(os.path.abspath(self.path))}#{self.offset}"  # noqa: PTH100

    def read(self, limits: ImageLimits) -> bytes:
        """The member's bytes. Raises RejectedImage if the shard has changed since it was listed, or is cut."""
        refuse_byte_count(self.size, limits)
        with open_unchanged(self.path, self.stamp) as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) != self.size:
            raise _cut(len(data), self.size)
        return data


class _Headers:
    """A shard as tarfile may read it: forwards only, and few bytes between two members.

    Attributes:
        file: The shard, unpacked.
        last: What was read last; empty at the end of the file.
    """

    def __init__(self, file: ForwardFile, on_disk: BinaryIO | None) -> None:
        self.file, self.last = file, b""
        self._on_disk, self._start = on_disk, 0
        self._left, self._spent = HEADER_BYTES, 0

    def next_member(self) -> None:
        self._left = HEADER_BYTES

    def tell(self) -> int:
        return self._start + self.file.tell()

    def read(self, count: int = -1) -> bytes:
        self._left -= count
        if count < 0 or self._left < 0:
            raise tarfile.ReadError(f"a header of more than {HEADER_BYTES} bytes")
        self._spend(count)
        self.last = self.file.read(count)
        return self.last

    def seek(self, position: int) -> None:
        step = position - self.tell()
        if step < 0:
            raise tarfile.ReadError("a header that points back")
        if self._on_disk is not None:
            self._on_disk.seek(position)
            self.file, self._start = ForwardFile(self._on_disk), position
            return
        self._spend(step)
        self.file.skip(step)

    def another_shard(self) -> bool:
        """Whether another shard follows the end mark; zeros between the two are passed over.

        Raises ReadError if what was read last is no end mark.
        """
        if self.last.strip(b"\0"):
            raise tarfile.ReadError("a block that is not a header")
        if not self.last:
            raise tarfile.ReadError("it has no end mark, so members may be missing")
        unused = 0
        while block := self.file.peek(tarfile.BLOCKSIZE):
            if block.strip(b"\0"):
                return True
            self._spend(len(block))
            unused += len(self.file.read(len(block)))
            if unused > UNUSED_END:
                raise tarfile.ReadError(f"more than {UNUSED_END} zeros after its end mark")
        return False

    def _spend(self, count: int) -> None:
        self._spent += count if self._on_disk is None else 0
        if self._spent > SKIPPED_BYTES:
            raise tarfile.ReadError(f"more than {SKIPPED_BYTES} bytes that are not images")


def list_shard(place: str, name: str, reading: ReadOptions) -> Iterator[Item]:
    """The members of a shard in their order, lazily; their ids are `name`/member.

    Hidden members and labels of images are left out. If the shard is damaged, the members before the damage are
    listed, and a refused item with the id `name` says that the rest could not be read.
    """
    remote = is_url(place)
    try:
        with open_url(place, reading.rules.urls) if remote else open_regular(Path(place)) as raw:
            file = ForwardFile(raw)
            unpacked = decompressed(file)
            if unpacked is file and not remote:
                yield from _list_plain(raw, Path(place), name, reading)
            else:
                yield from list_stream(ForwardFile(unpacked), name, reading)
    except Exception as error:  # each file system has its own
        reason = error.strerror if isinstance(error, OSError) and not remote else None
        yield refused_shard(name, reason or describe_error(error))


def begins_as_tar(file: BinaryIO, name: str) -> bool:
    """Whether a file, unpacked if it is compressed, begins with a tar's header, whose checksum is right."""
    with contextlib.suppress(Exception):  # tarfile, zlib and others fail on hostile bytes with any class
        block = decompressed(ForwardFile(file)).read(tarfile.BLOCKSIZE)
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        return True
    return False


_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
TAR = ContainerFormat(
    (".tar", *(f".tar{ending}" for ending in _COMPRESSED), ".tgz", ".tbz2", ".tbz", ".txz", ".tzst"),
    list_shard,
    begins_as_tar,
)


def list_stream(file: ForwardFile, name: str, reading: ReadOptions) -> Iterator[Item]:
    """As `list_shard`, for a tar that can only be read forwards."""
    return _list(_Headers(file, None), None, name, reading)


def _list_plain(raw: BinaryIO, path: Path, name: str, reading: ReadOptions) -> Iterator[Item]:
    raw.seek(0)
    return _list(_Headers(ForwardFile(raw), raw), (path, stamp_of(raw)), name, reading)


def _list(headers: _Headers, on_disk: tuple[Path, Stamp] | None, name: str, reading: ReadOptions) -> Iterator[Item]:
    return without_labels(_named_items(headers, on_disk, name, reading), reading.left_out, held=lambda item: item.held)


class _Extra:
    """Counts the members that are no items. Raises ReadError where there are too many for the images among them."""

    def __init__(self) -> None:
        self._left = MOST_EXTRA

    def add(self, *, image: bool) -> None:
        self._left += EXTRA_PER_IMAGE if image else -1
        if self._left < 0:
            raise tarfile.ReadError(f"more than {MOST_EXTRA} members that are folders, hidden or labels")


def _named_items(
    headers: _Headers, on_disk: tuple[Path, Stamp] | None, name: str, reading: ReadOptions
) -> Iterator[tuple[str, Item]]:
    """(name, item) of each member that is no folder and not hidden; a refused item where the tar is damaged."""
    files, more, extra = 0, True, _Extra()
    try:
        while more:
            for member in _members(headers):
                hidden = is_hidden_name(member.name)
                extra.add(image=not (member.isdir() or hidden or is_label_name(member.name)))
                if member.isdir():
                    continue
                files += 1
                text = member_name(member.name, files)
                if hidden:
                    reading.left_out.hidden += 1
                    continue
                yield text, _item(member, f"{name}/{text}", f"{name}#{files}", headers, reading.limits, on_disk)
            more = headers.another_shard()
    except Exception as error:  # tarfile and zlib fail on hostile bytes with any class: ValueError, RecursionError, ...
        yield "", refused_shard(name, str(error) if isinstance(error, tarfile.ReadError) else describe_error(error))


def _members(headers: _Headers) -> Iterator[tarfile.TarInfo]:
    """Members up to an end mark, a block that is no header, or the end of the file."""
    headers.next_member()
    archive = tarfile.TarFile(fileobj=headers, mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    first = archive.firstmember  # type: ignore[attr-defined]  # which it has read already, or failed to
    member = archive.next() if first else None
    while member is not None:
        archive.members = []  # type: ignore[attr-defined]  # which tarfile keeps for ever
        if member.size < 0:  # possible in base-256, and would read whatever follows
            raise tarfile.ReadError(f"a member of {member.size} bytes")
        yield member
        headers.next_member()
        member = archive.next()


def _item(
    member: tarfile.TarInfo,
    identity: str,
    where: str,
    headers: _Headers,
    limits: ImageLimits,
    on_disk: tuple[Path, Stamp] | None,
) -> Item:
    if not member.isreg() or member.issparse():
        link = member.islnk() or member.issym()
        kind = "a link" if link else "a sparse file" if member.isreg() else "not a regular file"
        return RefusedItem(identity, where, f"The member is {kind}; pack the image itself.")
    if on_disk is not None:
        return TarMember(identity, on_disk[0], member.offset_data, member.size, on_disk[1])
    try:
        refuse_byte_count(member.size, limits)
    except RejectedImage as error:
        return RefusedItem(identity, where, str(error))
    data = headers.file.read(member.size)
    if len(data) != member.size:
        return RefusedItem(identity, where, str(_cut(len(data), member.size)))
    return InlineItem(identity, where, data)


def _cut(found: int, size: int) -> RejectedImage:
    return RejectedImage(f"The shard ends after {found} of the member's {size} bytes; copy it again from its source.")
