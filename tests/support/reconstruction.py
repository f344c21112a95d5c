"""The witness `reconstruction` in NumPy, for one image; the product writes it into graphs."""

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.witnesses.reconstruction import BLUR, gaussian

Array = npt.NDArray[np.float32]


def reconstruction(x: Array, denoised: Array) -> float:
    """Root mean square difference of an image [C, H, W] and its denoised versions [R, T, C, H, W], all blurred."""
    height, width = x.shape[-2:]
    difference = denoised.astype(np.float64) - x
    deviation = BLUR * min(height, width)
    blurred = gaussian(height, deviation) @ difference @ gaussian(width, deviation).T
    return float(np.sqrt(np.mean(blurred**2)))
