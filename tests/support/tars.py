"""Writes tars byte by byte, good ones and such as no tool would write, for tests of shards."""

import io
import tarfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

END = bytes(1024)


def png(grey: int) -> bytes:
    """A real image file of one grey."""
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), grey, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def member(
    name: str, data: bytes = b"", *, size: int | None = None, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> bytes:
    """Header and padded data of one member; size: what the header claims."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data) if size is None else size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def raw_header(name: str, size_field: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header whose size field is written as given, with a right checksum."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size_field.ljust(12, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def tar(parts: Sequence[bytes], end: bytes = END) -> bytes:
    """Members one after the other, and the end mark."""
    return b"".join(parts) + end
