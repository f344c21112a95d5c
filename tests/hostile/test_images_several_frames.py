"""Attack: a file with several frames, of which a benign first one hides the others."""

import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import MOST_FRAMES_COUNTED, ImageLimits, ImageShape, decode

SHAPE = ImageShape(1, 8, 8)


def film(file_format: str, frames: int, **options: object) -> bytes:
    images = [Image.fromarray(np.full((8, 8), (20 + 97 * k) % 256, np.uint8)) for k in range(frames)]
    stream = io.BytesIO()
    images[0].save(stream, file_format, save_all=True, append_images=images[1:], **options)
    return stream.getvalue()


def test_it_is_refused_with_its_number_of_frames(subtests: pytest.Subtests) -> None:
    for frames, file_format in itertools.product([2, 3, 7], ["GIF", "PNG", "TIFF", "WEBP"]):
        refused = pytest.raises(RejectedImage, match=f"The {file_format} file has {frames} frames")
        with subtests.test(frames=frames, file_format=file_format), refused:
            decode(film(file_format, frames), SHAPE, ImageLimits())


def test_an_apng_with_a_default_image_outside_the_animation_is_refused() -> None:
    with pytest.raises(RejectedImage, match="frames"):
        decode(film("PNG", 3, default_image=True), SHAPE, ImageLimits())


def test_counting_stops(subtests: pytest.Subtests) -> None:
    for file_format in ["GIF", "TIFF"]:
        refused = pytest.raises(RejectedImage, match=f"at least {MOST_FRAMES_COUNTED} frames")
        with subtests.test(file_format=file_format), refused:
            decode(film(file_format, MOST_FRAMES_COUNTED + 20), SHAPE, ImageLimits())


def test_counting_decodes_no_more_pixels_than_the_largest_image() -> None:
    with pytest.raises(RejectedImage, match="at least 4 frames"):
        decode(film("GIF", 9), SHAPE, ImageLimits(max_pixels=8 * 8 * 4))


def test_tiff_pages_that_point_at_each_other_do_not_loop() -> None:
    data = bytearray(film("TIFF", 2))
    first = struct.unpack_from("<I", data, 4)[0]
    next_at = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
    second = struct.unpack_from("<I", data, next_at)[0]
    struct.pack_into("<I", data, second + 2 + 12 * struct.unpack_from("<H", data, second)[0], first)
    with pytest.raises(RejectedImage, match="has 2 frames"):
        decode(bytes(data), SHAPE, ImageLimits())
