"""How far denoised images are from the image itself."""

import math
from functools import lru_cache

import numpy as np

from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.definition import Traces, WitnessDefinition
from diffood.runtime.onnx.builder import Value, row_aligned

TRUNCATE = 4.0  # standard deviations, where the Gaussian ends
BLUR = 1 / 28  # of the shorter side; one pixel of the zoo's images, where it was chosen


@lru_cache(maxsize=8)
def gaussian(size: int, deviation: float) -> Float:
    """The Gaussian blur of a line of `size` pixels, mirrored at its ends, as a matrix [size, size]."""
    reach = int(TRUNCATE * deviation + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    mirrored = np.pad(np.eye(size), ((reach, reach), (0, 0)), mode="symmetric")
    blurred = sum(weight * mirrored[start : start + size] for start, weight in enumerate(weights / weights.sum()))
    return np.asarray(blurred)


def blurred_difference(traces: Traces) -> Value:
    """Denoised images less the image, blurred: [T, R, B, C, H, W].

    After Graham et al. 2023 (arXiv 2211.07740), who compare whole images. No denoised image has the texture of the
    original; blurred by a Gaussian of BLUR of the shorter side, what differs is the object.
    """
    assert traces.denoised is not None
    builder, (_, height, width) = traces.x.builder, traces.image
    deviation = BLUR * min(height, width)
    difference = traces.denoised - traces.x
    blurred = difference.reshape(-1, height, width, 1)
    for size in (height, width):  # down the columns, then along the rows
        # a product of matrices, as a convolution: TensorRT-RTX has the one in FP32 for no Turing GPU, and the other
        weights = gaussian(size, deviation).astype(np.float32)[:, :, None, None]
        blurred = builder.node("Conv", blurred, builder.constant(weights)).transpose(0, 2, 1, 3)
    return builder.node("Reshape", blurred, builder.node("Shape", difference))


def _mean_square(traces: Traces) -> Value:
    blurred, values = blurred_difference(traces), math.prod(traces.image)
    squares = blurred * blurred
    shape = squares.builder.node("Shape", squares, end=3)
    rows = squares.builder.node("Reshape", squares, squares.builder.concat([shape, squares.builder.integers([values])]))
    return row_aligned(rows, values).reduce("ReduceSum", 3) / float(values)


RECONSTRUCTION = WitnessDefinition(
    "reconstruction",
    "How far the denoised image is from the image itself, both slightly blurred.",
    of_denoised=_mean_square,
    reduce="root",
)
