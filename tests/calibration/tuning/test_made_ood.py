"""Made OOD images: the same from the same images, and of their shape."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffood.calibration.tuning.made_ood import GRID, MAKINGS, NOISE, Making, blended, noisy, shuffled, upside_down
from diffood.runtime.images.pixels import Pixels

pixels = hnp.arrays(np.uint8, st.tuples(st.sampled_from([1, 3]), st.integers(1, 18), st.integers(1, 18)))


@given(st.sampled_from(list(MAKINGS.values())), pixels, st.integers(0, 255))
def test_made_images_are_like_images_of_a_file(making: Making, image: Pixels, other: int) -> None:
    inputs = [image, np.full_like(image, other)][: making.takes]
    before = [given.copy() for given in inputs]
    made = making.make(*inputs)
    assert (made.shape, made.dtype) == (image.shape, np.uint8)
    assert np.array_equal(made, making.make(*inputs))
    assert all(np.array_equal(now, was) for now, was in zip(inputs, before, strict=True))


@given(pixels)
def test_flipping_and_shuffling_keep_every_pixel(image: Pixels) -> None:
    assert np.array_equal(upside_down(upside_down(image)), image)
    for made in (upside_down(image), shuffled(image)):
        assert np.array_equal(np.sort(made, axis=None), np.sort(image, axis=None))


def test_patches_stay_whole() -> None:
    """Every patch has its own colour, so a made one of two colours would show a cut elsewhere than at the grid."""
    patches = np.arange(GRID * GRID, dtype=np.uint8).reshape(1, GRID, GRID)
    made = shuffled(patches.repeat(7, axis=1).repeat(7, axis=2))
    cut = made.reshape(GRID, 7, GRID, 7).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    assert (np.ptp(cut, axis=1) == 0).all()
    assert not np.array_equal(made[0, ::7, ::7], patches[0])


def test_noise_has_its_deviation_and_a_blend_is_the_mean(clothes: npt.NDArray[np.uint8]) -> None:
    grey = np.full((1, 64, 64), 128, np.uint8)
    added = noisy(grey).astype(float) - 128
    assert added.std() == pytest.approx(NOISE, rel=0.1)  # some is clipped
    assert abs(added.mean()) < NOISE / 10
    first, second = clothes[:2, None]
    np.testing.assert_allclose(blended(first, second), (first / 2 + second / 2), atol=0.5)
    other = first.copy()
    other[0, 0, 0] ^= 1
    assert (noisy(first) != noisy(other)).mean() > 0.2  # half of it is black, and stays so under negative noise
