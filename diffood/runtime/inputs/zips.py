"""Lists the members of zip archives as items, without extracting to disk. An archive is not trusted.

Its directory, at its end, is read whole, within a limit. The members of an archive on disk are unpacked when they are
decoded; those of a remote one come with the listing. Links and encrypted members are refused; names are never used as
paths.
"""

import os
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, refuse_byte_count
from diffood.runtime.inputs.items import InlineItem, Item, RefusedItem, StoredItem, describe_error, utf8_name
from diffood.runtime.inputs.labels import is_hidden_name, is_image_name, without_labels
from diffood.runtime.inputs.members import Stamp, member_name, open_regular, open_unchanged, refused_shard, stamp_of
from diffood.runtime.inputs.reading import ContainerFormat, ReadOptions
from diffood.runtime.inputs.remote import open_url
from diffood.runtime.inputs.urls import is_url
from diffood.runtime.zip_directory import list_entries

LOCAL_HEADER, EMPTY_ARCHIVE = b"PK\3\4", b"PK\5\6"
LOCAL_HEADER_BYTES, NAME_LENGTHS_AT = 30, 26
DIRECTORY_BYTES = 64 * 2**20
"""Limit of an archive's directory, some 600,000 members."""
ENCRYPTED = 0x1
ARCHIVE_SUFFIXES = ("", ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".parquet")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks the others without a limit of memory


@dataclass(frozen=True)
class ZipMember(StoredItem):
    """A member of a zip on disk, as it was when it was listed."""

    path: Path
    info: zipfile.ZipInfo
    stamp: Stamp

    @property
    def place(self) -> str:
        """The archive and the offset in it."""
        return f"{utf8_name(os.path.abspath(self.path))}#{self.info.header_offset}"  # noqa: PTH100

    def read(self, limits: ImageLimits) -> bytes:
        """The member's bytes. Raises RejectedImage if they are damaged, or the archive has changed since."""
        refuse_byte_count(self.info.file_size, limits)
        with open_unchanged(self.path, self.stamp) as file:
            return _unpack(file, self.info)


def list_zip(place: str, name: str, reading: ReadOptions) -> Iterator[Item]:
    """The members of a zip in the order of its directory, lazily; their ids are `name`/member.

    Hidden members and labels of images are left out. A damaged archive is a refused item with the id `name`.
    """
    remote = is_url(place)
    try:
        opened = open_url(place, reading.rules.urls) if remote else open_regular(Path(place))
        with cast(AbstractContextManager[BinaryIO], opened) as file:
            size = file.seek(0, os.SEEK_END)
            infos = list_entries(file, DIRECTORY_BYTES)
            make = _inline(file, reading.limits) if remote else _on_disk(Path(place), stamp_of(file))
            named = _named_items(infos, name, reading, make)
            yield from without_labels(named, reading.left_out, held=lambda item: item.held)
            if sum(info.compress_size for info in infos) > size:
                yield refused_shard(name, "its members overlap")
            file.seek(0)
            if file.read(4) == LOCAL_HEADER and min((info.header_offset for info in infos), default=size) > 0:
                yield refused_shard(name, "members before its first one are not in its directory")
    except Exception as error:  # zipfile fails on hostile bytes with any class, and each file system has its own
        reason = error.strerror if isinstance(error, OSError) and not remote else None
        yield refused_shard(name, reason or describe_error(error))


def begins_as_zip(file: BinaryIO, name: str) -> bool:
    """Whether a file begins like a zip; if its name does not say archive, like one of images.

    Documents and weights are zips too, of other members: each is one file, which is refused.
    """
    head = file.read(LOCAL_HEADER_BYTES)
    if not head.startswith((LOCAL_HEADER, EMPTY_ARCHIVE)):
        return False
    if os.path.splitext(name)[1].lower() in ARCHIVE_SUFFIXES:  # noqa: PTH122 - may be a name only
        return True
    [length] = struct.unpack_from("<H", head.ljust(LOCAL_HEADER_BYTES, b"\0"), NAME_LENGTHS_AT)
    first = file.read(length).decode("utf-8", "replace")
    return is_image_name(first) or (first.endswith("/") and not first.startswith("META-INF/"))


ZIP = ContainerFormat((".zip",), list_zip, begins_as_zip)

_Make = Callable[[str, str, zipfile.ZipInfo], Item]


def _on_disk(path: Path, stamp: Stamp) -> _Make:
    return lambda identity, where, info: ZipMember(identity, path, info, stamp)


def _inline(file: BinaryIO, limits: ImageLimits) -> _Make:
    def make(identity: str, where: str, info: zipfile.ZipInfo) -> Item:
        try:
            refuse_byte_count(info.file_size, limits)
            return InlineItem(identity, where, _unpack(file, info))
        except RejectedImage as error:
            return RefusedItem(identity, where, str(error))

    return make


def _named_items(
    infos: list[zipfile.ZipInfo], name: str, reading: ReadOptions, make: _Make
) -> Iterator[tuple[str, Item]]:
    """(name, item) of each member that is no folder and not hidden."""
    files = (info for info in infos if not info.is_dir())
    for number, info in enumerate(files, 1):
        if is_hidden_name(info.filename):
            reading.left_out.hidden += 1
            continue
        text = member_name(info.filename, number)
        identity, where = f"{name}/{text}", f"{name}#{number}"
        reason = _why_refused(info)
        yield text, RefusedItem(identity, where, reason) if reason else make(identity, where, info)


def _why_refused(info: zipfile.ZipInfo) -> str:
    """Why a member cannot be read; "" if it can."""
    mode = info.external_attr >> 16  # of the system it was packed on; 0 if that was not Unix
    if stat.S_ISLNK(mode):
        return "The member is a link; pack the image itself."
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "The member is not a regular file; pack the image itself."
    if info.flag_bits & ENCRYPTED:
        return "The member is encrypted; pack it without a password."
    if info.compress_type not in METHODS:
        method = zipfile.compressor_names.get(info.compress_type, "unknown")  # type: ignore[attr-defined]
        return f"The member is compressed by method {info.compress_type} ({method}), which is not read; use deflate."
    return ""


def _seek_data(file: BinaryIO, info: zipfile.ZipInfo) -> None:
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER_BYTES)
    if not header.startswith(LOCAL_HEADER):
        raise zipfile.BadZipFile("no member begins where the directory says")
    file.seek(sum(struct.unpack_from("<HH", header, NAME_LENGTHS_AT)), os.SEEK_CUR)


def _unpack(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, with its checksum checked; never more than its directory entry says."""
    try:
        _seek_data(file, info)
        data = zipfile.ZipExtFile(file, "r", info).read(info.file_size + 1)
    except OSError:
        raise
    except Exception as error:  # zlib and zipfile fail on hostile bytes with any class
        raise RejectedImage(
            f"The member is damaged ({describe_error(error)}); copy the archive again from its source."
        ) from error
    if len(data) != info.file_size:
        raise RejectedImage(
            f"The member has {len(data)} of its {info.file_size} bytes; copy the archive again from its source."
        )
    return data
