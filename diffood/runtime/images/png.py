"""Takes text and colour profiles out of PNG files: no pixel depends on them, and Pillow refuses those above 1 MiB."""

import struct
import zlib
from collections.abc import Iterator

from diffood.errors import RejectedImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PROFILE, PLAIN_TEXT, COMPRESSED_TEXT, INTERNATIONAL_TEXT = b"iCCP", b"tEXt", b"zTXt", b"iTXt"
ORIENTATION_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of the texts in which Pillow looks for an orientation, which pixels do depend on."""
MOST_TEXT = 2**20
"""Inflated bytes of a text that is left for Pillow: its own limit, PngImagePlugin.MAX_TEXT_CHUNK."""
PIECE = 2**16  # bytes inflated at a time, and dropped


def without_metadata(data: bytes, max_bytes: int) -> bytes:
    """The PNG file without text and colour profiles, except texts that may tell its orientation.

    Args:
        data: A PNG file; anything else is returned as it is.
        max_bytes: Limit of the file and its inflated metadata together. Nothing inflated is kept in memory.

    Raises:
        RejectedImage: The metadata inflates to more.
    """
    if not data.startswith(SIGNATURE):
        return data
    left = max_bytes - len(data)
    kept, dropped, end = [], 0, len(SIGNATURE)
    for start, stop, kind in _chunks(data):
        end = stop
        body = data[start + 8 : stop - 4] if kind in _READERS else b""
        if kind not in _READERS or zlib.crc32(body, zlib.crc32(kind)).to_bytes(4, "big") != data[stop - 4 : stop]:
            kept.append((start, stop))  # a wrong checksum is for Pillow to refuse
            continue
        size = _inflated_size(_READERS[kind](body), left)
        left -= size
        if kind != PROFILE and body.partition(b"\0")[0] in ORIENTATION_TEXTS and size <= MOST_TEXT:
            kept.append((start, stop))
        else:
            dropped += 1
    if not dropped:
        return data
    return b"".join([SIGNATURE, *(data[start:stop] for start, stop in kept), data[end:]])


def _chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, type) of each whole chunk: length, type, body, checksum."""
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        stop = start + 12 + length
        if stop > len(data):
            return
        yield start, stop, data[start + 4 : start + 8]
        start = stop


def _profile(body: bytes) -> bytes:
    return body.partition(b"\0")[2][1:]  # name, 0, compression method, profile


def _international_text(body: bytes) -> bytes:
    rest = body.partition(b"\0")[2]  # keyword, 0, flag, method, language, 0, translated keyword, 0, text
    text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return text if rest[:1] == b"\1" else b""


_READERS = {
    PROFILE: _profile,
    PLAIN_TEXT: lambda body: b"",
    COMPRESSED_TEXT: _profile,
    INTERNATIONAL_TEXT: _international_text,
}
"""The compressed part of each kind of metadata; empty where it has none."""


def _inflated_size(packed: bytes, most: int) -> int:
    """Bytes that compressed metadata inflates to; damage ends it. Raises RejectedImage for more than `most`."""
    inflater, size = zlib.decompressobj(), 0
    while packed and not inflater.eof:
        try:
            size += len(inflater.decompress(packed, PIECE))
        except zlib.error:
            break
        if size > most:
            raise RejectedImage(
                f"The PNG's texts and colour profile are too large: they inflate to more than the {most} bytes that "
                "the limit of the file leaves; save it without metadata, or raise the limit."
            )
        packed = inflater.unconsumed_tail
    return size
