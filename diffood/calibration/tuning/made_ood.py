"""Makes out-of-distribution images from in-distribution ones, for users who have none. Pure, deterministic functions.

Real OOD images are better evidence; these are a substitute. Each is a function of the images alone, with randomness
drawn from their pixels, so the same files always make the same images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from diffood.runtime.images.pixels import Pixels
from diffood.runtime.method.noise import NoisePool, make_pool
from diffood.runtime.method.scoring import Array

GRID = 4  # patches per side: small enough that no object stays whole, large enough that its texture does
NOISE = (
    0.5 * 127.5
)  # standard deviation, half of what white differs from grey: clearly visible, and the object still is
SEED = 2**62  # of the randomness in an image; images differ by their pixels. No plan is likely to have it


def upside_down(image: Pixels) -> Pixels:
    """Image [C, H, W] flipped top to bottom. In-distribution where objects have no fixed orientation."""
    return np.ascontiguousarray(image[:, ::-1])


def shuffled(image: Pixels) -> Pixels:
    """Image [C, H, W] with the patches of a GRID by GRID grid in another order; a remainder at the edge stays.

    The same textures and brightness, no object (as the jigsaws of Noroozi and Favaro 2016). An image smaller than
    the grid stays as it is.
    """
    height, width = (side // GRID for side in image.shape[1:])
    order = np.argsort(_normals(image, (GRID * GRID,)), kind="stable")
    found: Pixels = image.copy()
    for place, taken in enumerate(order):
        row, column = divmod(place, GRID)
        from_row, from_column = divmod(int(taken), GRID)
        found[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = image[
            :,
            from_row * height : (from_row + 1) * height,
            from_column * width : (from_column + 1) * width,
        ]
    return found


def noisy(image: Pixels) -> Pixels:
    """Image [C, H, W] with normal noise of deviation NOISE added."""
    return _rounded(image + NOISE * _normals(image, image.shape))


def blended(image: Pixels, other: Pixels) -> Pixels:
    """The mean of two images [C, H, W]: two objects in one place (mixup, Zhang 2018)."""
    return _rounded((image.astype(np.float32) + other) / 2)


@dataclass(frozen=True)
class Making:
    """A kind of made images.

    Attributes:
        takes: Number of in-distribution images that one is made from.
        make: The function of these.
    """

    takes: int
    make: Callable[..., Pixels]


MAKINGS = {
    "made: upside-down": Making(1, upside_down),
    "made: shuffled": Making(1, shuffled),
    "made: noisy": Making(1, noisy),
    "made: blended": Making(2, blended),
}


def _normals(image: Pixels, shape: tuple[int, ...]) -> Array:
    """Standard normals that are a function of the image."""
    return np.asarray(_pool(image.size, math.prod(shape)).draw(image[None], shape)[0, 0])


@lru_cache(maxsize=4)
def _pool(pixels: int, size: int) -> NoisePool:
    return make_pool(SEED, 1, pixels, size)


def _rounded(values: npt.NDArray[np.floating]) -> Pixels:
    rounded: Pixels = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return rounded
