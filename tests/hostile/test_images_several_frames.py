"""Attack: a file with several frames, of which a benign first one hides the others."""

import contextlib
import io
import itertools
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import MOST_FRAMES_COUNTED, ImageLimits, ImageShape, decode
from diffood.runtime.images.gif import MOST_BLOCKS, count_frames

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


def test_counting_decodes_nothing(subtests: pytest.Subtests) -> None:
    """A frame beyond the first one's edge enlarges the picture, and Pillow makes room for it as it passes the frame."""
    data = bytearray(film("GIF", 9))
    descriptors = [at for at in range(len(data)) if data[at : at + 9] == b"," + struct.pack("<4H", 0, 0, 8, 8)]
    assert len(descriptors) == 9
    for left, top in ((60_000, 2_000), (8, 8), (0, 0)):
        with subtests.test(left=left, top=top), pytest.raises(RejectedImage, match="has 9 frames"):
            struct.pack_into("<2H", data, descriptors[1] + 1, left, top)
            with no_room_for_pixels():
                decode(bytes(data), SHAPE, ImageLimits(max_pixels=8 * 8))


@contextlib.contextmanager
def no_room_for_pixels() -> Iterator[None]:
    """Let nothing be decoded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "load", lambda *given: pytest.fail("a frame is decoded"))
        patch.setattr(GifImageFile, "load", lambda *given: pytest.fail("a frame is decoded"))
        yield


def test_blocks_that_end_early_or_never_are_counted_to_there() -> None:
    data = film("GIF", 3)
    for end in range(len(data)):
        assert 0 <= count_frames(data[:end], 100) <= 3
    head, block = data[:13], b"\x21\xfe" + b"\1a" * MOST_BLOCKS
    assert count_frames(head[:10] + b"\0" + head[11:] + block * 2 + b"\0", 100) == 0


def test_tiff_pages_that_point_at_each_other_do_not_loop() -> None:
    data = bytearray(film("TIFF", 2))
    first = struct.unpack_from("<I", data, 4)[0]
    next_at = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
    second = struct.unpack_from("<I", data, next_at)[0]
    struct.pack_into("<I", data, second + 2 + 12 * struct.unpack_from("<H", data, second)[0], first)
    with pytest.raises(RejectedImage, match="has 2 frames"):
        decode(bytes(data), SHAPE, ImageLimits())
