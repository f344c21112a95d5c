"""Image files of all formats: headers, limits, metadata, frames."""

import numpy as np
from image_mutations import mutate, with_right_checksums
from oracle import LIMITS, attempt

from diffood.runtime.images.decode import ImageShape, decode

SHAPES = (ImageShape(3, 9, 9), ImageShape(1, 28, 28))


def use(data: bytes) -> None:
    """The first byte says for which model the rest is decoded."""
    if data:
        attempt(lambda: _decode(data[1:], SHAPES[data[0] % len(SHAPES)]))


def _decode(data: bytes, shape: ImageShape) -> None:
    pixels, note = decode(data, shape, LIMITS)
    assert pixels.shape == (shape.channels, shape.height, shape.width)
    assert pixels.dtype == np.uint8
    assert note.isprintable(), note


def change(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file; a PNG's checksums are put right, so that the damage reaches the decoder."""
    changed = mutate(data[1:], rng)
    return data[:1] + (with_right_checksums(changed) if changed[1:4] == b"PNG" else changed)
