"""Made OOD images: the same from the same images, of their shape and range, in whole pixel values."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffood.calibration.tuning.made_ood import GRID, MAKINGS, Making, blended, noisy, shuffled, upside_down
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.scoring import Array

pixels = hnp.arrays(np.uint8, st.tuples(st.sampled_from([1, 3]), st.integers(1, 18), st.integers(1, 18)))


@given(st.sampled_from(list(MAKINGS.values())), pixels, st.integers(0, 255))
def test_made_images_are_like_images_of_a_file(making: Making, given_pixels: npt.NDArray[np.uint8], other: int) -> None:
    inputs = [from_pixels(given_pixels), from_pixels(np.full_like(given_pixels, other))][: making.takes]
    before = [x.copy() for x in inputs]
    made = making.make(*inputs)
    assert made.shape == given_pixels.shape
    assert made.dtype == np.float32
    assert np.array_equal(made, from_pixels(np.rint((made + 1) * 127.5).astype(np.uint8)))
    assert np.array_equal(made, making.make(*inputs))
    assert all(np.array_equal(x, was) for x, was in zip(inputs, before, strict=True))


@given(pixels)
def test_flipping_and_shuffling_keep_every_pixel(given_pixels: npt.NDArray[np.uint8]) -> None:
    x = from_pixels(given_pixels)
    assert np.array_equal(upside_down(upside_down(x)), x)
    for made in (upside_down(x), shuffled(x)):
        assert np.array_equal(np.sort(made, axis=None), np.sort(x, axis=None))


def test_patches_stay_whole() -> None:
    """Every patch has its own colour, so a made one of two colours would show a cut elsewhere than at the grid."""
    patches = np.arange(GRID * GRID, dtype=np.uint8).reshape(1, GRID, GRID)
    made = shuffled(from_pixels(patches.repeat(7, axis=1).repeat(7, axis=2)))
    cut = made.reshape(GRID, 7, GRID, 7).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    assert (np.ptp(cut, axis=1) == 0).all()
    assert not np.array_equal(made[0, ::7, ::7], from_pixels(patches)[0])


def test_noise_has_its_deviation_and_a_blend_is_the_mean(clothes: npt.NDArray[np.uint8]) -> None:
    grey: Array = np.zeros((1, 64, 64), np.float32)
    assert noisy(grey).std() == pytest.approx(0.5, abs=0.05)  # some is clipped
    assert abs(noisy(grey).mean()) < 0.05
    first, second = (from_pixels(clothes[k][None]) for k in (0, 1))
    np.testing.assert_allclose(blended(first, second), (first + second) / 2, atol=1.01 / 255)
    assert not np.array_equal(noisy(first) - first, noisy(second) - second)
