"""Lists the image members of tar shards as items, without extracting to disk. A shard is not trusted.

Only headers are read here. The members of a plain .tar are read at their offsets when they are decoded. A compressed
or remote shard can only be read from its beginning, so its members' bytes come with the listing. Links, devices and
sparse members are refused; names are never used as paths.
"""

import gzip
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import LONGEST_ID, InlineItem, Item, RefusedItem, describe_error, utf8_name
from diffood.runtime.inputs.reading import ContainerFormat, ReadOptions
from diffood.runtime.inputs.remote import is_url, open_url

IMAGE_ENDINGS = (
    *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm"),
    *(".ppm", ".tif", ".tiff", ".webp"),
)
HEADER_BYTES = 2**20
"""Limit of one member's headers: long names and PAX records take hundreds, and tarfile reads them whole."""
SKIPPED_BYTES = 4 * 2**30
"""Limit of bytes that are decompressed and skipped in a shard: a bomb of zeros costs seconds, not hours."""


@dataclass(frozen=True)
class TarMember(Item):
    """A member of a plain .tar; `stamp` is the size, time and inode of the shard when it was listed."""

    path: Path
    offset: int
    size: int
    stamp: tuple[int, int, int]

    @property
    def place(self) -> str:
        """The shard and the offset in it."""
        return f"{utf8_name(os.path.abspath(self.path))}#{self.offset}"  # noqa: PTH100

    def read(self, limits: ImageLimits) -> bytes:
        """The member's bytes. Raises RejectedImage if the shard has changed since it was listed, or is cut."""
        _refuse_size(self.size, limits)
        try:
            with _open(self.path) as file:
                if _stamp(file) != self.stamp:
                    raise RejectedImage("The shard was changed after it was listed; try again once it is written.")
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise RejectedImage(f"The shard can no longer be read ({error.strerror}); check it.") from error
        if len(data) != self.size:
            raise _cut(len(data), self.size)
        return data


class _Headers:
    """A shard's file as tarfile may read it: forwards only, and few bytes between two members."""

    def __init__(self, file: BinaryIO, *, skipping_costs: bool) -> None:
        self.file, self.last = file, b""
        self._costs, self._left, self._skipped = skipping_costs, HEADER_BYTES, 0

    def next_member(self) -> None:
        self._left = HEADER_BYTES

    def tell(self) -> int:
        return self.file.tell()

    def read(self, count: int = -1) -> bytes:
        self._left -= count
        if count < 0 or self._left < 0:
            raise tarfile.ReadError(f"a header of more than {HEADER_BYTES} bytes")
        self.last = self.file.read(count)
        return self.last

    def seek(self, position: int) -> None:
        step = position - self.file.tell()
        if step < 0:
            raise tarfile.ReadError("a header that points back")
        if self._costs:
            self._skipped += step
            if self._skipped > SKIPPED_BYTES:
                raise tarfile.ReadError(f"more than {SKIPPED_BYTES} bytes that are not images")
        self.file.seek(position)


def list_shard(place: str, name: str, reading: ReadOptions) -> Iterator[Item]:
    """The image members of a shard in their order, lazily; their ids are `name`/member.

    Members without an image's ending are skipped: labels, captions. If the shard is damaged, the members before the
    damage are listed, and a refused item with the id `name` says that the rest could not be read.
    """
    remote = is_url(place)
    compressed = not place.partition("::")[0].lower().endswith(".tar")
    try:
        with (
            open_url(place) if remote else _open(Path(place)) as raw,
            gzip.open(raw) if compressed else raw as file,
        ):
            on_disk = None if compressed or remote else (Path(place), _stamp(raw))
            yield from list_stream(cast(BinaryIO, file), name, reading.limits, on_disk)
    except Exception as error:  # each file system has its own
        reason = error.strerror if isinstance(error, OSError) and not remote else None
        yield refused_shard(name, reason or describe_error(error))


TAR = ContainerFormat((".tar", ".tar.gz", ".tgz"), list_shard)


def list_stream(
    file: BinaryIO, name: str, limits: ImageLimits, on_disk: tuple[Path, tuple[int, int, int]] | None = None
) -> Iterator[Item]:
    """As `list_shard`, for an opened tar; on_disk: path and stamp if members can be read at their offsets."""
    headers = _Headers(file, skipping_costs=on_disk is None)
    images = 0
    try:
        archive = tarfile.TarFile(fileobj=headers, mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
        while True:
            headers.next_member()
            member = archive.next()
            if member is None:
                break
            archive.members = []  # type: ignore[attr-defined]  # which tarfile keeps for ever
            _refuse_negative(member)
            if not _is_image(member):
                continue
            images += 1
            yield _item(member, f"{name}/{_member_name(member, images)}", f"{name}#{images}", headers, limits, on_disk)
        if headers.last.strip(b"\0"):
            yield refused_shard(name, "a block that is not a header")
        elif not headers.last:
            yield refused_shard(name, "it has no end mark, so members may be missing")
        elif not images:
            yield refused_shard(name, f"no member's name ends in {', '.join(IMAGE_ENDINGS)}")
    except Exception as error:  # tarfile and zlib fail on hostile bytes with any class: ValueError, RecursionError, ...
        yield refused_shard(name, describe_error(error))


def _item(
    member: tarfile.TarInfo,
    identity: str,
    where: str,
    headers: _Headers,
    limits: ImageLimits,
    on_disk: tuple[Path, tuple[int, int, int]] | None,
) -> Item:
    if not member.isreg() or member.issparse():
        link = member.islnk() or member.issym()
        kind = "a link" if link else "a sparse file" if member.isreg() else "not a regular file"
        return RefusedItem(identity, where, f"The member is {kind}; pack the image itself.")
    if on_disk is not None:
        return TarMember(identity, on_disk[0], member.offset_data, member.size, on_disk[1])
    try:
        _refuse_size(member.size, limits)
    except RejectedImage as error:
        return RefusedItem(identity, where, str(error))
    data = headers.file.read(member.size)
    if len(data) != member.size:
        return RefusedItem(identity, where, str(_cut(len(data), member.size)))
    return InlineItem(identity, where, data)


def refused_shard(name: str, reason: str) -> RefusedItem:
    """The item that says that a shard, or the rest of it, could not be read."""
    return RefusedItem(
        name,
        name,
        f"The shard, or its rest after the last row, cannot be read ({reason}); copy it again from its source.",
    )


def _is_image(member: tarfile.TarInfo) -> bool:
    base = member.name.rpartition("/")[2]
    return not member.isdir() and not base.startswith(".") and os.path.splitext(base)[1].lower() in IMAGE_ENDINGS  # noqa: PTH122


def _member_name(member: tarfile.TarInfo, number: int) -> str:
    name = utf8_name(member.name)
    return name if len(name) <= LONGEST_ID else f"{name[:100]}…#{number}"


def _refuse_negative(member: tarfile.TarInfo) -> None:
    if member.size < 0:  # possible in base-256, and would read whatever follows
        raise tarfile.ReadError(f"a member of {member.size} bytes")


def _refuse_size(size: int, limits: ImageLimits) -> None:
    if size > limits.max_bytes:
        raise RejectedImage(
            f"The member has {size} bytes and the limit is {limits.max_bytes}; save it smaller, or raise the limit."
        )


def _cut(found: int, size: int) -> RejectedImage:
    return RejectedImage(f"The shard ends after {found} of the member's {size} bytes; copy it again from its source.")


def _open(path: Path) -> BinaryIO:
    """Open a regular file; OSError for others, since a FIFO would block."""
    if not path.is_file():
        raise OSError(0, "it is missing or not a regular file")
    return path.open("rb")


def _stamp(file: BinaryIO) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino
