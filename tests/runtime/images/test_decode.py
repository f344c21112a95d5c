"""Tests of decoding and preparing good images; attacks are in tests/hostile/test_images_*.py."""

import hashlib
import io
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import encoded
from PIL import Image, PngImagePlugin

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits, ImageShape, decode, load_image, read_file
from diffood.runtime.images.pixels import from_pixels

LIMITS = ImageLimits()
GREY = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)
ALPHA = np.array([[0, 255, 128, 255]] * 4, np.uint8)


def test_lossless_grey_comes_back_the_same_with_no_note() -> None:
    for file_format in ["PNG", "BMP", "TIFF", "PPM", "GIF"]:
        pixels, note = decode(encoded(Image.fromarray(GREY), file_format), ImageShape(1, 4, 4), LIMITS)
        assert pixels.dtype == np.uint8, file_format
        assert np.array_equal(pixels, GREY[None]), file_format
        assert note == ("converted from RGB to grey" if file_format == "GIF" and note else ""), file_format


def test_lossless_colour_comes_back_the_same_with_no_note() -> None:
    for file_format, options in [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ]:
        pixels, note = decode(encoded(Image.fromarray(COLOUR), file_format, **options), ImageShape(3, 4, 4), LIMITS)
        assert np.array_equal(pixels, COLOUR.transpose(2, 0, 1)), (file_format, options)
        assert note == "", (file_format, options)


def test_lossy_files_come_back_close() -> None:
    for file_format in ["JPEG", "WEBP"]:
        smooth = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None] * 8, (32, 32, 3))
        pixels, note = decode(encoded(Image.fromarray(smooth), file_format, quality=95), ImageShape(3, 32, 32), LIMITS)
        assert np.abs(pixels.astype(int) - smooth.transpose(2, 0, 1)).max() <= 8, file_format
        assert note == "", file_format


@given(arrays(np.uint8, (28, 28)))
def test_any_grey_png_comes_back_the_same(image: np.ndarray) -> None:
    pixels, note = decode(encoded(Image.fromarray(image)), ImageShape(1, 28, 28), LIMITS)
    assert np.array_equal(pixels[0], image)
    assert note == ""


def test_one_bit_is_black_and_white() -> None:
    bits = GREY > 100
    for file_format in ("PNG", "TIFF", "BMP", "PPM"):
        pixels, note = decode(encoded(Image.fromarray(bits), file_format), ImageShape(1, 4, 4), LIMITS)
        assert np.array_equal(pixels[0], bits * np.uint8(255)), file_format
        assert note == ""


def test_grey_to_colour_repeats_the_channel_and_says_so() -> None:
    pixels, note = decode(encoded(Image.fromarray(GREY)), ImageShape(3, 4, 4), LIMITS)
    assert np.array_equal(pixels, np.stack([GREY] * 3))
    assert note == "converted from grey to RGB"


def test_colour_to_grey_weighs_the_channels_by_itu_r_601_and_says_so() -> None:
    pixels, note = decode(encoded(Image.fromarray(COLOUR)), ImageShape(1, 4, 4), LIMITS)
    assert np.abs(pixels[0] - COLOUR @ [0.299, 0.587, 0.114]).max() <= 1
    assert note == "converted from RGB to grey"


def test_palette_gives_its_colours() -> None:
    palette = Image.fromarray(COLOUR).quantize(16)
    pixels, note = decode(encoded(palette), ImageShape(3, 4, 4), LIMITS)
    assert np.array_equal(pixels, np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    assert note == ""


def test_transparent_palette_entry_becomes_black() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 100, 50, 10, 20, 30])
    palette.putpixel((1, 0), 1)
    for file_format in ("PNG", "GIF"):
        pixels, note = decode(encoded(palette, file_format, transparency=0), ImageShape(3, 1, 2), LIMITS)
        assert pixels[:, 0, 0].tolist() == [0, 0, 0]
        assert pixels[:, 0, 1].tolist() == [10, 20, 30]
        assert note == "composited over black"


def test_alpha_multiplies_the_colour() -> None:
    rgba = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    pixels, note = decode(encoded(rgba), ImageShape(3, 4, 4), LIMITS)
    assert np.abs(pixels.transpose(1, 2, 0) - COLOUR * (ALPHA / 255)[..., None]).max() <= 0.5
    assert note == "composited over black"


def test_grey_with_alpha_stays_grey() -> None:
    image = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA)))
    pixels, note = decode(encoded(image), ImageShape(1, 4, 4), LIMITS)
    assert np.abs(pixels[0] - GREY * (ALPHA / 255)).max() <= 0.5
    assert note == "composited over black"


def test_opaque_alpha_changes_nothing_and_is_not_noted() -> None:
    pixels, note = decode(encoded(Image.fromarray(COLOUR).convert("RGBA")), ImageShape(3, 4, 4), LIMITS)
    assert np.array_equal(pixels, COLOUR.transpose(2, 0, 1))
    assert note == ""


def test_a_transparent_colour_without_alpha_channel_becomes_black() -> None:
    for mode, value in [("L", 51), ("RGB", (51, 51, 51))]:
        data = encoded(Image.new(mode, (2, 2), value), transparency=value)
        pixels, note = decode(data, ImageShape(1, 2, 2), LIMITS)
        assert pixels.max() == 0, (mode, value)
        assert note.startswith("composited over black"), (mode, value)


def test_other_colour_spaces_become_rgb_and_say_so() -> None:
    for mode, file_format, tolerance in [("CMYK", "TIFF", 0), ("CMYK", "JPEG", 3), ("LAB", "TIFF", 3)]:
        image = Image.new("RGB", (8, 8), (180, 120, 60)).convert(mode)
        pixels, note = decode(encoded(image, file_format), ImageShape(3, 8, 8), LIMITS)
        assert np.abs(pixels[:, 4, 4].astype(int) - [180, 120, 60]).max() <= tolerance, (mode, file_format, tolerance)
        assert note == f"converted from {mode}", (mode, file_format, tolerance)


SIXTEEN_BITS = np.array([[0, 128, 129, 255], [256, 257, 32767, 32768], [32896, 65406, 65407, 65535]], np.uint16)


def test_16_bits_are_scaled_not_clipped() -> None:
    for file_format, dtype, options in [
        ("PNG", "<u2", {}),
        ("PPM", "<u2", {}),  # comes as mode I
        ("PPM", "<i4", {}),
        ("TIFF", "<u2", {}),
        ("TIFF", ">u2", {}),
        ("TIFF", "<u2", {"compression": "tiff_lzw"}),
    ]:
        image = Image.fromarray(SIXTEEN_BITS.astype(dtype))
        pixels, note = decode(encoded(image, file_format, **options), ImageShape(1, 3, 4), LIMITS)
        assert np.array_equal(pixels[0], np.round(SIXTEEN_BITS / 257)), (file_format, dtype, options)
        assert note == "reduced from 16 bits to 8", (file_format, dtype, options)


def test_16_bit_tiff_where_zero_is_white_is_inverted() -> None:
    data = encoded(Image.fromarray(SIXTEEN_BITS), "TIFF", tiffinfo={262: 0})
    pixels, _ = decode(data, ImageShape(1, 3, 4), LIMITS)
    assert np.array_equal(pixels[0], 255 - np.round(SIXTEEN_BITS / 257))


def test_values_without_a_known_white_are_refused(subtests: pytest.Subtests) -> None:
    for dtype, reason in [("float32", "floating-point"), ("int32", "32-bit integers")]:
        with subtests.test(dtype=dtype), pytest.raises(RejectedImage, match=reason):
            decode(encoded(Image.fromarray(GREY.astype(dtype)), "TIFF"), ImageShape(1, 4, 4), LIMITS)


def test_a_file_of_another_kind_is_named() -> None:
    for data, kind in [
        (b"\0\0\0\x1cftypheic" + bytes(20), "an HEIC image"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "an AVIF image"),
        (b"\0\0\0\x1cftypisom" + bytes(20), "a video"),
        (b"PK\3\4" + bytes(30), "a zip archive or document"),
        (b"a.png".ljust(257, b"\0") + b"ustar  " + bytes(248), "a tar archive"),
        (b"%PDF-1.7", "a PDF"),
    ]:
        with pytest.raises(RejectedImage, match=f"not an image in a format diffood reads.*, as {kind} does"):
            decode(data, ImageShape(1, 4, 4), LIMITS)
    with pytest.raises(RejectedImage, match=r"begins with b'words'\); use one of PNG"):
        decode(b"words", ImageShape(1, 4, 4), LIMITS)


def test_resizing_antialiases_a_checkerboard_to_grey() -> None:
    for size in [56, 112, 280, 1000]:
        board = (np.indices((size, size)).sum(axis=0) % 2 * 255).astype(np.uint8)
        pixels, note = decode(encoded(Image.fromarray(board)), ImageShape(1, 28, 28), LIMITS)
        assert np.abs(pixels.astype(int) - 127.5).max() <= 8, size
        assert note == f"resized from {size}x{size}", size


def test_note_tells_size_and_stretching() -> None:
    for width, height, note in [
        (28, 28, ""),
        (14, 14, "resized from 14x14"),
        (56, 56, "resized from 56x56"),
        (1000, 1009, "resized from 1000x1009"),
        (1000, 1011, "resized from 1000x1011 and stretched"),
        (28, 27, "resized from 28x27 and stretched"),
        (640, 480, "resized from 640x480 and stretched"),
    ]:
        image = Image.new("L", (width, height), 77)
        pixels, told = decode(encoded(image), ImageShape(1, 28, 28), LIMITS)
        assert (pixels == 77).all(), (width, height, note)
        assert told == note, (width, height, note)


def test_note_lists_every_change_in_order() -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(Image.new("CMYK", (64, 48)), "JPEG", exif=exif)
    note = decode(data, ImageShape(1, 28, 28), LIMITS)[1]
    assert note == (
        "converted from CMYK; rotated by its EXIF tag; converted from RGB to grey; resized from 48x64 and stretched"
    )


def test_16_bit_colour_png_says_so() -> None:
    # Pillow writes no 16-bit RGB, so the file is put together from the chunks of the PNG specification.
    rows = b"".join(b"\0" + np.full((2, 3), 0x80FF, ">u2").tobytes() for _ in range(2))
    stream = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    stream.seek(0, io.SEEK_END)
    PngImagePlugin.putchunk(stream, b"IHDR", b"\0\0\0\2\0\0\0\2\x10\2\0\0\0")
    PngImagePlugin.putchunk(stream, b"IDAT", zlib.compress(rows))
    PngImagePlugin.putchunk(stream, b"IEND", b"")
    pixels, note = decode(stream.getvalue(), ImageShape(3, 2, 2), LIMITS)
    assert set(pixels.ravel().tolist()) <= {0x80, 0x81}
    assert note == "reduced from 16 bits to 8"


def test_mpo_gives_its_first_picture_and_says_so() -> None:
    first, second = Image.new("L", (16, 16), 200), Image.new("L", (16, 16), 10)
    pixels, note = decode(encoded(first, "MPO", save_all=True, append_images=[second]), ImageShape(1, 16, 16), LIMITS)
    assert abs(int(pixels[0, 8, 8]) - 200) <= 1
    assert note == "first of the 2 pictures of an MPO"


def test_from_pixels_is_monotone_with_exact_endpoints() -> None:
    x = from_pixels(np.arange(256, dtype=np.uint8))
    assert x.dtype == np.float32
    assert x[0] == -1
    assert x[255] == 1
    assert (np.diff(x) > 0).all()


def test_load_image_hashes_the_bytes_of_the_file(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(COLOUR))
    (tmp_path / "colour.png").write_bytes(data)
    loaded = load_image(tmp_path / "colour.png", ImageShape(3, 4, 4))
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()
    assert loaded.pixels is not None
    assert loaded.pixels.flags.c_contiguous
    assert np.array_equal(loaded.pixels, COLOUR.transpose(2, 0, 1))
    assert (loaded.note, loaded.error) == ("", "")


def test_load_image_returns_the_refusal_with_the_hash(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"not an image")
    loaded = load_image(tmp_path / "text.png", ImageShape(3, 4, 4))
    assert loaded.pixels is None
    assert loaded.error
    assert loaded.sha256 == hashlib.sha256(b"not an image").hexdigest()


def test_read_file_gives_the_bytes_also_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"any bytes")
    (tmp_path / "link.png").symlink_to("image.png")
    assert read_file(tmp_path / "image.png", LIMITS) == b"any bytes"
    assert read_file(tmp_path / "link.png", LIMITS) == b"any bytes"


def test_impossible_shapes_are_refused(subtests: pytest.Subtests) -> None:
    for shape in [(2, 28, 28), (0, 28, 28), (4, 28, 28), (1, 0, 28), (3, 28, -1)]:
        with subtests.test(shape=shape), pytest.raises(ValueError, match="correct the image shape"):
            ImageShape(*shape)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_the_shape_asked_for_is_the_shape_given(width: int, height: int, to_width: int, to_height: int, c: int) -> None:
    data = encoded(Image.new("RGB", (width, height), (9, 9, 9)))
    pixels, _ = decode(data, ImageShape(c, to_height, to_width), LIMITS)
    assert pixels.shape == (c, to_height, to_width)
    assert (pixels == 9).all()


def test_threads_decode_the_same_as_one() -> None:
    files = [encoded(Image.fromarray(np.roll(COLOUR, k, axis=0)), f) for k in range(4) for f in ("PNG", "TIFF", "WEBP")]
    shape = ImageShape(3, 7, 7)
    alone = [decode(data, shape, LIMITS)[0] for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, shape, LIMITS)[0], files * 4))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 4, together, strict=True))


def test_nothing_is_printed_about_a_file_pillow_warns_of(tmp_path: Path) -> None:
    # A tag in the middle of the file's TIFF directory that claims more data than there is makes Pillow warn.
    data = bytearray(encoded(Image.fromarray(GREY), "TIFF", tiffinfo={270: "a description longer than four bytes"}))
    at = data.index(b"\x0e\x01\x02\x00")  # tag 270, type ASCII
    data[at + 4 : at + 8] = (10**6).to_bytes(4, "little")
    (tmp_path / "warned.tif").write_bytes(bytes(data))
    lines = (
        "from pathlib import Path; from diffood.runtime.images.decode import *\n"
        "from diffood.errors import RejectedImage\n"
        f"data = read_file(Path({str(tmp_path / 'warned.tif')!r}), ImageLimits())\n"
        "try: decode(data, ImageShape(1, 4, 4), ImageLimits())\n"
        "except RejectedImage: pass\n"
    )
    done = subprocess.run([sys.executable, "-W", "default", "-c", lines], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
