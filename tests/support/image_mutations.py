"""Small real images of every format diffood reads, and damage to them; for tests that attack the decoders."""

import io
import zlib

import numpy as np
from PIL import Image


def seeds() -> dict[str, bytes]:
    """One small file of each format and of each mode whose decoding takes its own way."""
    rng = np.random.default_rng(7)
    colour = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (9, 11), dtype=np.uint16))
    exif = Image.Exif()
    exif[274] = 6
    exif[270] = "a description"
    wanted: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "png": (colour, "PNG", {"exif": exif}),
        "png-palette": (colour.quantize(8), "PNG", {"transparency": 2}),
        "png-16": (deep, "PNG", {}),
        "apng": (colour, "PNG", {"save_all": True, "append_images": [colour.rotate(180)]}),
        "jpeg": (colour, "JPEG", {"exif": exif}),
        "jpeg-progressive-cmyk": (colour.convert("CMYK"), "JPEG", {"progressive": True}),
        "mpo": (colour, "MPO", {"save_all": True, "append_images": [colour.rotate(180)]}),
        "gif": (colour.quantize(8), "GIF", {"transparency": 2}),
        "gif-animated": (colour, "GIF", {"save_all": True, "append_images": [colour.rotate(180)]}),
        "bmp": (colour, "BMP", {}),
        "bmp-palette": (colour.quantize(8), "BMP", {}),
        "tiff": (colour, "TIFF", {"tiffinfo": {274: 6}}),
        "tiff-16": (deep, "TIFF", {}),
        "tiff-lzw": (colour.convert("RGBA"), "TIFF", {"compression": "tiff_lzw"}),
        "tiff-jpeg": (colour, "TIFF", {"compression": "jpeg"}),
        "tiff-pages": (colour, "TIFF", {"save_all": True, "append_images": [colour]}),
        "tiff-lab": (colour.convert("LAB"), "TIFF", {}),
        "webp": (colour, "WEBP", {"exif": exif}),
        "webp-lossless": (colour.convert("RGBA"), "WEBP", {"lossless": True}),
        "ppm": (colour, "PPM", {}),
    }
    files = {}
    for name, (image, file_format, options) in wanted.items():
        stream = io.BytesIO()
        image.save(stream, file_format, **options)
        files[name] = stream.getvalue()
    return files


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    mutant = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        # Half of the hits land in the first 100 bytes, where headers are.
        at = int(rng.integers(min(len(mutant), 100 if rng.random() < 0.5 else len(mutant)) or 1))
        kind = rng.integers(6)
        if kind == 0:
            mutant[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            mutant[at : at + 4] = bytes([rng.choice([0, 1, 127, 128, 255])]) * 4
        elif kind == 2:
            del mutant[at:]
        elif kind == 3:
            del mutant[at : at + int(rng.integers(1, 20))]
        elif kind == 4:
            mutant[at:at] = mutant[at : at + int(rng.integers(1, 40))]
        elif mutant:
            mutant[at % len(mutant)] ^= 1 << int(rng.integers(8))
    return bytes(mutant)


def with_right_checksums(data: bytes) -> bytes:
    """The PNG with each chunk's checksum put right, so that its damage reaches the decoder."""
    mended, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        mended[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big") if end + 4 <= len(data) else b""
        at = end + 4
    return bytes(mended[: len(data)])
