"""Metadata of images: an orientation is applied; comments, profiles and damaged EXIF data do not change pixels."""

import struct

import numpy as np
import pytest
from pictures import encoded
from PIL import Image, PngImagePlugin

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, ImageShape, decode

LIMITS = ImageLimits()
GREY = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17


# An F, which no symmetry maps to itself; what is stored for each EXIF orientation so that it is shown upright.
LETTER = np.array([[255, 255, 255], [255, 0, 0], [255, 255, 0], [255, 0, 0], [255, 0, 0]], np.uint8)
STORED = {
    1: LETTER,
    2: LETTER[:, ::-1],
    3: LETTER[::-1, ::-1],
    4: LETTER[::-1],
    5: LETTER.T,
    6: np.rot90(LETTER),
    7: LETTER[::-1, ::-1].T,
    8: np.rot90(LETTER, -1),
}


def test_exif_orientation_is_applied() -> None:
    for file_format in ["PNG", "TIFF", "WEBP"]:
        for orientation, stored in STORED.items():
            exif = Image.Exif()
            exif[274] = orientation
            options = {"lossless": True} if file_format == "WEBP" else {}
            image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
            pixels, note = decode(encoded(image, file_format, exif=exif, **options), ImageShape(3, 5, 3), LIMITS)
            assert np.array_equal(pixels, np.stack([LETTER] * 3)), (file_format, orientation)
            assert note == ("" if orientation == 1 else "rotated by its EXIF tag"), (file_format, orientation)


def test_exif_orientation_of_a_jpeg_is_applied_before_the_size_is_compared() -> None:
    exif = Image.Exif()
    exif[274] = 6
    wide = np.zeros((16, 32), np.uint8)
    wide[:, :16] = 255  # the left half, shown on top
    pixels, note = decode(encoded(Image.fromarray(wide), "JPEG", exif=exif), ImageShape(1, 32, 16), LIMITS)
    assert pixels[0, :15].min() > 250
    assert pixels[0, 17:].max() < 5
    assert note == "rotated by its EXIF tag"


def test_unknown_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[274] = 0  # written by some cameras
    pixels, note = decode(encoded(Image.fromarray(GREY), exif=exif), ImageShape(1, 4, 4), LIMITS)
    assert np.array_equal(pixels[0], GREY)
    assert note == ""


def png_with_text(keyword: str, text: str, *, zipped: bool, international: bool = False) -> bytes:
    info = PngImagePlugin.PngInfo()
    (info.add_itxt if international else info.add_text)(keyword, text, zip=zipped)
    return encoded(Image.fromarray(GREY), pnginfo=info)


def test_large_metadata_of_a_png_does_not_matter_to_its_pixels() -> None:
    """Pillow refuses a PNG with a text or profile above 1 MiB."""
    large = "x" * (3 * 2**20)
    files = {
        "tEXt": png_with_text("Comment", large, zipped=False),
        "zTXt": png_with_text("Comment", large, zipped=True),
        "iTXt": png_with_text("Comment", large, zipped=True, international=True),
        "iTXt that Pillow reads": png_with_text("XML:com.adobe.xmp", large, zipped=True, international=True),
        "iCCP": encoded(Image.fromarray(GREY), icc_profile=large.encode()),
    }
    for kind, data in files.items():
        pixels, note = decode(data, ImageShape(1, 4, 4), LIMITS)
        assert np.array_equal(pixels[0], GREY), kind
        assert note == "", kind


def test_an_orientation_in_the_text_of_a_png_is_applied() -> None:
    data = png_with_text("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>', zipped=False, international=True)
    assert np.array_equal(decode(data, ImageShape(1, 4, 4), LIMITS)[0][0], np.rot90(GREY, 2))


def test_a_wrong_checksum_of_pixels_or_of_what_follows_them_is_refused() -> None:
    """Decoding alone does not look at them."""
    plain = encoded(Image.fromarray(GREY))
    end = plain.index(b"IEND") - 4
    late = plain[:end] + struct.pack(">I", 4) + b"tIME" + b"date" + struct.pack(">I", 1) + plain[end:]
    for data in (plain[: end - 1] + bytes([plain[end - 1] ^ 1]) + plain[end:], late):
        with pytest.raises(RejectedImage, match="checksum"):
            decode(data, ImageShape(1, 4, 4), LIMITS)


def test_metadata_with_a_wrong_checksum_is_refused() -> None:
    for keyword in ("Comment", "XML:com.adobe.xmp"):
        data = png_with_text(keyword, "words", zipped=False)
        with pytest.raises(RejectedImage, match="damaged"):
            decode(data.replace(b"words", b"wordS"), ImageShape(1, 4, 4), LIMITS)


def test_damaged_exif_data_does_not_matter_to_pixels() -> None:
    for file_format in ("PNG", "WEBP"):
        data = encoded(Image.fromarray(GREY), file_format, exif=b"Exif\0\0garbage", lossless=True)
        pixels, note = decode(data, ImageShape(1, 4, 4), LIMITS)
        assert np.array_equal(pixels[0], GREY), file_format
        assert "EXIF data is damaged" in note, file_format
