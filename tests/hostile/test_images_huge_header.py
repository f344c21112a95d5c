"""Attack: a tiny file whose valid header announces gigapixels; it must be refused before memory is asked for."""

import io
import struct
import tracemalloc
import zlib

import pytest
from PIL import Image

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, ImageShape, decode

SHAPE = ImageShape(1, 28, 28)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def webp_extended(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas


def webp_lossless(width: int, height: int) -> bytes:
    bits = struct.pack("<I", width - 1 | height - 1 << 14)
    return b"RIFF" + struct.pack("<I", 18) + b"WEBPVP8L" + struct.pack("<I", 5) + b"\x2f" + bits + b"\0"


def webp_lossy(width: int, height: int) -> bytes:
    frame = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8 " + struct.pack("<I", 10) + frame


def test_it_is_refused_without_allocating(subtests: pytest.Subtests) -> None:
    for case, (data, size) in {
        "png": (png(60000, 60000), "60000x60000 = 3600000000"),
        "png-64-megapixels": (png(8000, 8000), "8000x8000 = 64000000"),
        "ppm": (b"P5 60000 60000 255\n\0", "60000x60000 = 3600000000"),
        "bmp": (bmp(60000, 60000), "60000x60000 = 3600000000"),
        "webp-vp8x": (webp_extended(16000, 16000), "16000x16000 = 256000000"),
        "webp-vp8l": (webp_lossless(16000, 16000), "16000x16000 = 256000000"),
        "webp-vp8": (webp_lossy(16000, 16000), "16000x16000 = 256000000"),
    }.items():
        with subtests.test(case=case):
            tracemalloc.start()
            try:
                with pytest.raises(RejectedImage, match=f"{size}|too large"):
                    decode(data, SHAPE, ImageLimits())
                assert tracemalloc.get_traced_memory()[1] < 2**20
            finally:
                tracemalloc.stop()


def test_the_limit_is_the_largest_size_allowed() -> None:
    stream = io.BytesIO()
    Image.new("L", (30, 40)).save(stream, "PNG")
    decode(stream.getvalue(), SHAPE, ImageLimits(max_pixels=1200))
    with pytest.raises(RejectedImage, match="30x40 = 1200 pixels and the limit is 1199"):
        decode(stream.getvalue(), SHAPE, ImageLimits(max_pixels=1199))


def test_a_small_tiff_with_a_huge_tile_is_refused() -> None:
    # Tags of TIFF 6.0: width, height, bits, deflate, black is zero, samples, tile width and length, offset, byte count.
    values = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16384, 323: 16384, 324: 134, 325: 16}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + bytes(16)
    with pytest.raises(RejectedImage, match="TIFF tile has 16384x16384"):
        decode(data, SHAPE, ImageLimits())


def test_a_limit_above_pillows_own_still_ends_in_a_refusal() -> None:
    with pytest.raises(RejectedImage, match="too large"):
        decode(png(60000, 60000), SHAPE, ImageLimits(max_pixels=10**10))


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(RejectedImage, match="has 70 bytes and the limit is 69"):
        decode(bytes(70), SHAPE, ImageLimits(max_bytes=69))
