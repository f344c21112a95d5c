"""The conversion between 8-bit pixels and what the models take, both ways."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def from_pixels(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Pixels uint8 of any shape to float32 in [-1, 1]: pixels / 127.5 - 1, so that 0 is exactly -1 and 255 exactly 1.

    The scaling of Ho et al. 2020 (DDPM), section 3.3.
    """
    x: npt.NDArray[np.float32] = pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return x


def to_pixels(x: npt.NDArray[np.floating]) -> Pixels:
    """The nearest pixels uint8 of values of any shape; clipped to [-1, 1], black where they are not finite."""
    finite = np.nan_to_num(x, nan=-1, posinf=-1, neginf=-1)
    pixels: Pixels = np.rint((np.clip(finite, -1, 1) + 1) * 127.5).astype(np.uint8)
    return pixels
