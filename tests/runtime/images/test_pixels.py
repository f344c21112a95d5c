"""Pixels become what the models take, and back, without a level lost."""

import numpy as np

from diffood.runtime.images.pixels import from_pixels, to_pixels


def test_every_level_survives_the_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    x = from_pixels(levels)
    assert (x.dtype, x.min(), x.max()) == (np.float32, -1.0, 1.0)
    assert np.array_equal(to_pixels(x), levels)


def test_values_beyond_the_range_are_clipped_and_those_not_finite_are_black() -> None:
    assert to_pixels(np.array([-2.0, 0.0, 3.0, np.nan, np.inf, -np.inf])).tolist() == [0, 128, 255, 0, 0, 0]
