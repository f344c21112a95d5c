"""Attack: a PNG whose compressed text or colour profile inflates a thousandfold. Nothing inflated is kept in memory."""

import itertools
import struct
import tracemalloc
import zlib

import pytest
from PIL import ImageFile, PngImagePlugin

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, ImageShape, decode

BOMB = zlib.compress(bytes(64 * 2**20), 9)  # 64 MiB in 64 KiB


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEADER = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 0))
PIXELS = chunk(b"IDAT", zlib.compress(b"\0\x07\x09"))
END = chunk(b"IEND", b"")
BOMBS = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0en\0\0" + BOMB),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + BOMB),
}


def test_it_is_not_inflated(subtests: pytest.Subtests) -> None:
    for kind, place in itertools.product(BOMBS, ["before the pixels", "after the pixels"]):
        with subtests.test(kind=kind, place=place):
            parts = (BOMBS[kind], PIXELS) if place == "before the pixels" else (PIXELS, BOMBS[kind])
            data = HEADER + b"".join(parts) + END
            tracemalloc.start()
            try:
                with pytest.raises(RejectedImage, match="too large"):
                    decode(data, ImageShape(1, 1, 2), ImageLimits())
                assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
            finally:
                tracemalloc.stop()


def test_many_small_bomb_count_together() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20), 9))
    decode(HEADER + bomb * 3 + PIXELS + END, ImageShape(1, 1, 2), ImageLimits(max_bytes=4 * 2**20))
    with pytest.raises(RejectedImage, match="too large"):
        decode(HEADER + bomb * 4 + PIXELS + END, ImageShape(1, 1, 2), ImageLimits(max_bytes=4 * 2**20))


def test_the_same_file_without_its_bomb_is_fine() -> None:
    pixels, note = decode(HEADER + PIXELS + END, ImageShape(1, 1, 2), ImageLimits())
    assert pixels.tolist() == [[[7, 9]]]
    assert note == ""


def test_pillows_limits_are_as_pillow_ships_them() -> None:
    assert PngImagePlugin.MAX_TEXT_CHUNK == 2**20
    assert PngImagePlugin.MAX_TEXT_MEMORY == 64 * 2**20
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
