"""Out-of-distribution images made from in-distribution ones, for those who have none. Pure, deterministic functions.

They stand in for images nobody has seen yet, and say less than real ones do: whoever has real ones gives those. Each is
a function of the images alone, with chance drawn from their content, so the same files always make the same images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffood.runtime.images.pixels import from_pixels, to_pixels
from diffood.runtime.method.noise import content_key, draw_noise
from diffood.runtime.method.scoring import Array

GRID = 4  # patches a side: small enough that no object is left whole, large enough that its texture is
NOISE = 0.5  # deviation of the added noise, of pixels in [-1, 1]: plain to the eye, and the object is still there
SEED = 0  # of the chance in an image; its content is what tells images apart


def upside_down(x: Array) -> Array:
    """Image [C, H, W] flipped top to bottom. Where things lie any way up this is in-distribution: leave it out then."""
    return np.ascontiguousarray(x[:, ::-1])


def shuffled(x: Array) -> Array:
    """Image [C, H, W] with the patches of a GRID by GRID grid in another order; a rim that does not divide stays.

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
    """One kind of made images: how many in-distribution images one takes, and the function of these."""

    takes: int
    make: Callable[..., Array]


MAKINGS = {
    "made: upside-down": Making(1, upside_down),
    "made: shuffled": Making(1, shuffled),
    "made: noisy": Making(1, noisy),
    "made: blended": Making(2, blended),
}


def _as_pixels(x: Array) -> Array:
    """Rounded to what a file of 8 bits can hold, since every real image is: else the rounding itself gave it away."""
    return from_pixels(to_pixels(x))
