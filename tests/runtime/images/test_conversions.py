"""Kinds of change, counted from the notes that decoding writes of real files."""

import io

import numpy as np
import pytest
from PIL import Image

from diffood.runtime.images.conversions import count_kinds, kinds_of
from diffood.runtime.images.decode import ImageLimits, ImageShape, decode

RESIZED, STRETCHED = "resized", "stretched to another aspect ratio"
GREY, RGB = ImageShape(1, 8, 8), ImageShape(3, 8, 8)


def note_of(image: Image.Image, shape: ImageShape, file_format: str = "PNG", **options: object) -> str:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return decode(stream.getvalue(), shape, ImageLimits())[1]


def blank(mode: str, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size)


CASES = (
    (note_of(blank("L"), GREY), ()),
    (note_of(blank("RGB"), RGB), ()),
    (note_of(blank("L"), RGB), ("grey to RGB",)),
    (note_of(blank("RGB"), GREY), ("RGB to grey",)),
    (note_of(blank("RGBA"), RGB), ("alpha dropped",)),
    (note_of(blank("CMYK"), RGB, "JPEG"), ("other colour space to RGB",)),
    (note_of(blank("L", (16, 16)), GREY), (RESIZED,)),
    (note_of(blank("L", (16, 12)), GREY), (RESIZED, STRETCHED)),
    (note_of(Image.fromarray(np.full((8, 8), 700, np.uint16)), GREY), ("16 bits to 8",)),
    (note_of(blank("RGBA", (64, 48)), GREY), ("alpha dropped", "RGB to grey", RESIZED, STRETCHED)),
)


def test_a_note_of_the_decoder_names_its_kinds(subtests: pytest.Subtests) -> None:
    for note, kinds in CASES:
        with subtests.test(note=note):
            assert kinds_of(note) == kinds


def test_an_unknown_note_is_counted_and_never_repeated() -> None:
    assert kinds_of("\x1b[31mred; resized from 9x9") == ("changed otherwise", RESIZED)


def test_images_are_counted_by_kind() -> None:
    counts = count_kinds(["", "resized from 9x9", "resized from 640x480 and stretched", "converted from grey to RGB"])
    assert counts == {RESIZED: 2, STRETCHED: 1, "grey to RGB": 1}
