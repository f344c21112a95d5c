"""The shape that images are trained at, and the own shape of a file."""

import io
from pathlib import Path

import pytest
from PIL import Image

from diffood.errors import UsageError
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageShape
from diffood.runtime.images.probe import probe_shape
from diffood.runtime.inputs.open import list_inputs
from diffood.training.images import choose_shape, count_levels, fits


def encoded(mode: str, size: tuple[int, int], kind: str = "PNG", orientation: int | None = None) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.new(mode, size).save(file, kind, exif=exif)
    return file.getvalue()


def test_the_own_shape_of_a_file() -> None:
    for data, shape in [
        (encoded("L", (20, 10)), ImageShape(1, 10, 20)),
        (encoded("I;16", (20, 10)), ImageShape(1, 10, 20)),
        (encoded("LA", (20, 10)), ImageShape(1, 10, 20)),
        (encoded("RGB", (20, 10)), ImageShape(3, 10, 20)),
        (encoded("RGBA", (20, 10)), ImageShape(3, 10, 20)),
        (encoded("P", (20, 10)), ImageShape(3, 10, 20)),
        (encoded("RGB", (20, 10), "JPEG", orientation=6), ImageShape(3, 20, 10)),
        (encoded("RGB", (20, 10), "JPEG", orientation=3), ImageShape(3, 10, 20)),
        (b"not an image", None),
        (b"", None),
    ]:
        assert probe_shape(lambda: data, DEFAULT_LIMITS) == shape, (data[:99], shape)


def test_the_shape_of_a_training(tmp_path: Path) -> None:
    for sizes, asked, shape in [
        ([(28, 28)] * 3, None, (1, 28, 28)),
        ([(640, 480)] * 3, None, (1, 48, 64)),  # width x height in the file
        ([(32, 32), (32, 32), (40, 40)], None, (1, 32, 32)),
        ([(33, 33)] * 3, None, (1, 32, 32)),  # an odd side cannot be halved
        ([(200, 200), (100, 100), (300, 100)], None, (1, 32, 64)),
        ([(28, 28)] * 3, (48, 96), (1, 48, 96)),
    ]:
        for index, size in enumerate(sizes):  # always three, so that none is left of the case before
            (tmp_path / f"{index}.png").write_bytes(encoded("L", size))
        found, why = choose_shape(list_inputs([str(tmp_path)]), asked, DEFAULT_LIMITS)
        assert found == ImageShape(*shape), (sizes, asked, why)


def test_one_colour_image_makes_a_colour_training_and_odd_sizes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("L", (32, 32)))
    (tmp_path / "b.png").write_bytes(encoded("RGB", (32, 32)))
    (tmp_path / "c.png").write_text("not an image")
    items = list_inputs([str(tmp_path)])
    assert choose_shape(items, None, DEFAULT_LIMITS)[0] == ImageShape(3, 32, 32)
    with pytest.raises(UsageError, match="33x37 cannot be halved often enough; 32x40 can"):
        choose_shape(items, (33, 37), DEFAULT_LIMITS)
    with pytest.raises(UsageError, match=r"None of 1 images tried can be read, 'c\.png'"):
        choose_shape(items[2:], None, DEFAULT_LIMITS)


def test_levels_halve_to_a_small_one() -> None:
    for size, levels in [((8, 8), 1), ((28, 28), 3), ((32, 32), 3), ((64, 64), 4), ((48, 64), 4), ((20, 20), 3)]:
        assert count_levels(*size) == levels, size
        assert fits(*size), size


def test_sizes_that_do_not_reach_a_small_level() -> None:
    assert not any(fits(*size) for size in ((33, 33), (50, 50), (64, 33), (100, 100)))
    assert fits(15, 15)
