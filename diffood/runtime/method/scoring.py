"""Score functions in numpy: how far a classifier's output moved."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]

_SMALLEST_NORM = 1e-12  # as torch's normalize: an all-zero vector stays zero


def unit(vectors: npt.NDArray[np.floating]) -> Float:
    """Divide each vector [..., D] by its L2 norm, in float64."""
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), _SMALLEST_NORM))


def jump(before: npt.NDArray[np.floating], after: npt.NDArray[np.floating], norm: Literal["l1", "l2"]) -> Float:
    """Distance [...] between unit vectors of [..., D]: the paper's algorithm box (l1); its figure says l2."""
    difference = unit(before) - unit(after)
    if norm == "l1":
        return np.asarray(np.abs(difference).sum(axis=-1))
    return np.asarray(np.linalg.norm(difference, axis=-1))


def jumps(
    origin: npt.NDArray[np.floating],
    denoised: npt.NDArray[np.floating],
    norm: Literal["l1", "l2"],
    compare: Literal["origin", "neighbour"],
) -> Float:
    """Jumps [R, T] of one image, by repeat and start time (Liu et al., arXiv 2211.11255); the paper's score is a mean.

    origin [R, D] (one row broadcasts), denoised [R, T, D] with start times ascending.
    """
    first = np.broadcast_to(origin[:, None, :], denoised[:, :1].shape)
    if compare == "neighbour":
        before = np.concatenate([first, denoised[:, :-1]], axis=1)
    else:
        before = np.broadcast_to(first, denoised.shape)
    return jump(before, denoised, norm)


def softmax_confidence(logits: npt.NDArray[np.floating]) -> Float:
    """Largest softmax probability [...] of logits [..., K]."""
    wide = logits.astype(np.float64)
    return np.asarray(1 / np.exp(wide - wide.max(axis=-1, keepdims=True)).sum(axis=-1))
