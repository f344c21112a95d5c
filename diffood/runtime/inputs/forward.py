"""Reads a file forwards only, decompressed if it is compressed, whatever its name says."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

PIECE = 2**16
XZ_MEMORY = 2**28
"""Limit of bytes that unpacking an .xz may take: `xz -9` needs 65 MiB."""
EMPTY_BYTES = 2**20
"""Limit of compressed bytes that unpack to nothing: headers, empty streams, padding. Readers read ahead within it."""
SHARE_OF_HEADERS = 32  # of what was unpacked, one part more may have been read: bzip2 makes noise 1 % larger
GZIP, BZIP2, XZ, ZSTANDARD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"


class Readable(Protocol):
    """What is needed of a file."""

    def read(self, count: int, /) -> bytes:
        """The next bytes, at most `count`; none at the end."""


class ForwardFile:
    """A file that is read forwards, and whose next bytes can be looked at before. Any file that can be read will do."""

    def __init__(self, file: Readable) -> None:
        self._file, self._next, self._position = file, b"", 0

    def peek(self, count: int) -> bytes:
        """The next bytes, which stay; fewer at the end."""
        pieces, found = [self._next], len(self._next)
        while found < count and (more := self._file.read(count - found)):
            pieces.append(more)
            found += len(more)
        self._next = b"".join(pieces)
        return self._next[:count]

    def read(self, count: int = PIECE) -> bytes:
        """The next bytes; fewer at the end."""
        found = self.peek(count)
        self._next = self._next[len(found) :]
        self._position += len(found)
        return found

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def skip(self, count: int) -> None:
        """Read and drop so many bytes, fewer at the end."""
        while count > 0:
            found = len(self.read(min(count, PIECE)))
            if not found:
                return
            count -= found


def decompressed(file: ForwardFile) -> Readable:
    """The file itself, or what a gzip, bzip2 or xz file unpacks to. Raises ValueError for Zstandard."""
    head = file.peek(6)
    if head.startswith(GZIP):
        return _Unpacked(file, lambda counted: gzip.GzipFile(fileobj=cast(BinaryIO, counted)))
    if head.startswith(BZIP2):
        return _Unpacked(file, lambda counted: bz2.BZ2File(cast(BinaryIO, counted)))
    if head.startswith(XZ):
        return _Unpacked(file, lambda counted: io.BufferedReader(_Xz(counted), PIECE))
    if head.startswith(ZSTANDARD):
        raise ValueError("it is compressed with Zstandard, which is not read; use gzip")
    return file


class _Counted:
    """A file of which no more is read than is allowed: empty streams and padding unpack to nothing, however many."""

    def __init__(self, file: Readable) -> None:
        self._file, self.left = file, 0

    def read(self, count: int = PIECE) -> bytes:
        found = self._file.read(count)
        self.left -= len(found)
        if self.left < 0:
            raise ValueError(f"more than {EMPTY_BYTES} bytes that unpack to nothing")
        return found


class _Unpacked:
    """What a compressed file unpacks to, which has to be about as much as was read, or more."""

    def __init__(self, file: Readable, unpack: Callable[["_Counted"], Readable]) -> None:
        self._counted = _Counted(file)
        self._counted.left = EMPTY_BYTES
        self._stream = unpack(self._counted)

    def read(self, count: int, /) -> bytes:
        """The next bytes, at most `count`; none at the end."""
        self._counted.left += count
        found = self._stream.read(count)
        self._counted.left += len(found) + len(found) // SHARE_OF_HEADERS - count
        return found


class _Xz(io.RawIOBase):
    """What an .xz file unpacks to, within a limit of memory, which Python's own LZMAFile does not have."""

    def __init__(self, file: Readable) -> None:
        self._file, self._unpack = file, lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        found = b""
        while not found:
            if self._unpack.eof:  # another stream may follow, after padding
                rest = self._unpack.unused_data.lstrip(b"\0") or self._file.read(PIECE).lstrip(b"\0")
                if not rest:
                    return 0
                self._unpack = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            else:
                rest = self._file.read(PIECE) if self._unpack.needs_input else b""
                if self._unpack.needs_input and not rest:
                    raise EOFError("the compressed file ended before its end mark")
            found = self._unpack.decompress(rest, len(buffer))
        buffer[: len(found)] = found
        return len(found)
