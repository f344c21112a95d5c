"""Makes out-of-distribution images from in-distribution ones, for users who have none. Pure, deterministic functions.

Real OOD images are better evidence; these are a substitute. Each is a function of the images alone, with randomness
drawn from their content, so the same files always make the same images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffood.runtime.images.pixels import from_pixels, to_pixels
from diffood.runtime.method.noise import content_key, draw_noise
from diffood.runtime.method.scoring import Array

GRID = 4  # patches per side: small enough that no object stays whole, large enough that its texture does
NOISE = 0.5  # standard deviation of the noise on pixels in [-1, 1]: clearly visible, and the object still is
SEED = 0  # of the randomness in an image; images differ by their content


def upside_down(x: Array) -> Array:
    """Image [C, H, W] flipped top to bottom. In-distribution where objects have no fixed orientation."""
    return np.ascontiguousarray(x[:, ::-1])


def shuffled(x: Array) -> Array:
    """Image [C, H, W] with the patches of a GRID by GRID grid in another order; a remainder at the edge stays.

    The same textures and brightness, no object (as the jigsaws of Noroozi and Favaro 2016). An image smaller than
    the grid stays as it is.
    """
    height, width = (side // GRID for side in x.shape[1:])
    order = np.argsort(draw_noise(content_key(x), SEED, 0, (GRID * GRID,)), kind="stable")
    found: Array = x.copy()
    for place, taken in enumerate(order):
        row, column = divmod(place, GRID)
        from_row, from_column = divmod(int(taken), GRID)
        found[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = x[
            :,
            from_row * height : (from_row + 1) * height,
            from_column * width : (from_column + 1) * width,
        ]
    return found


def noisy(x: Array) -> Array:
    """Image [C, H, W] with normal noise of deviation NOISE added, in whole pixel values."""
    return _as_pixels(x + np.float32(NOISE) * draw_noise(content_key(x), SEED, 0, x.shape))


def blended(x: Array, other: Array) -> Array:
    """The mean of two images [C, H, W], in whole pixel values: two objects in one place (mixup, Zhang 2018)."""
    return _as_pixels((x + other) * np.float32(0.5))


@dataclass(frozen=True)
class Making:
    """A kind of made images.

    Attributes:
        takes: Number of in-distribution images that one is made from.
        make: The function of these.
    """

    takes: int
    make: Callable[..., Array]


MAKINGS = {
    "made: upside-down": Making(1, upside_down),
    "made: shuffled": Making(1, shuffled),
    "made: noisy": Making(1, noisy),
    "made: blended": Making(2, blended),
}


def _as_pixels(x: Array) -> Array:
    """Rounded to 8-bit values, as every real image is; otherwise unrounded values would reveal a made image."""
    return from_pixels(to_pixels(x))
