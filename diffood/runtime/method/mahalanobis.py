"""Mahalanobis++: how far a vector of unit length is from the nearest mean of a class. Pure arithmetic.

Mueller and Hein 2025 (arXiv 2505.18032): vectors are divided by their lengths before class means and one covariance for
all classes are fitted. Shrunk towards a multiple of the identity, so that few images can fit many dimensions, and kept
by its largest axes: what is across them counts with one variance.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.scoring import Array, Float, unit

SHRINKAGE = 0.05  # of the covariance, towards its mean variance times the identity
MOST_AXES = 256


@dataclass(frozen=True)
class Gaussians:
    """Class means and a covariance for all of them, of unit vectors [D].

    Attributes:
        means: float32 [K, D], of the classes that were there.
        axes: Orthonormal columns float32 [D, A].
        precisions: Of each axis, 1 / its variance, float32 [A].
        across: 1 / the variance of every direction that no axis has.
    """

    means: Array
    axes: Array
    precisions: Array
    across: float


@dataclass(frozen=True)
class FittedGaussians:
    """Gaussians, and what they would say of the vectors they were fitted on had those been left out.

    Attributes:
        gaussians: The Gaussians.
        own: Distances [N] from Gaussians that were fitted on all other vectors.
    """

    gaussians: Gaussians
    own: Float


def fit_gaussians(vectors: Array, classes: npt.NDArray[np.int64]) -> FittedGaussians:
    """Fit vectors [N, D] of classes [N]. A class of one vector, left out, is measured from the other means."""
    rows = unit(vectors.astype(np.float64))
    present, place, counts = np.unique(classes, return_inverse=True, return_counts=True)
    means = np.stack([rows[place == index].mean(axis=0) for index in range(len(present))])
    centred = rows - means[place]
    rounding = float(np.finfo(np.float32).eps) ** 2
    isotropic = max(float((centred**2).sum() / centred.size), rounding)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    across = SHRINKAGE * isotropic
    variances = (1 - SHRINKAGE) * spread**2 / len(rows) + across
    kept = slice(None, MOST_AXES)
    gaussians = Gaussians(
        means.astype(np.float32),
        np.ascontiguousarray(axes[kept].T, np.float32),
        (1 / variances[kept]).astype(np.float32),
        1 / across,
    )
    return FittedGaussians(gaussians, _leave_one_out(rows, means, place, counts, gaussians))


def _leave_one_out(
    rows: Float, means: Float, place: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], fitted: Gaussians
) -> Float:
    """Distance [N] of each row from Gaussians without it, by Sherman and Morrison 1950: no fit is repeated.

    Without row x of a class of n, its mean moves away by r / (n - 1), r = x - mean, and N times the covariance loses
    n / (n - 1) times r rᵀ. The isotropic part is left as it is.
    """
    axes, precisions = fitted.axes.astype(np.float64), fitted.precisions.astype(np.float64) - fitted.across

    def product(one: Float, other: Float) -> Float:
        """oneᵀ · precision · other, row by row."""
        along = ((one @ axes) * precisions * (other @ axes)).sum(axis=1)
        return np.asarray(along + (one * other).sum(axis=1) * fitted.across)

    own = rows - means[place]
    size = counts[place].astype(np.float64)
    ratio = size / np.maximum(size - 1, 1)
    share = (1 - SHRINKAGE) * ratio / len(rows)
    to_itself = product(own, own)
    left = np.maximum(1 - share * to_itself, np.finfo(np.float64).eps)
    squares = np.full((len(rows), len(means)), np.inf)
    for index, mean in enumerate(means):
        mine = place == index
        off = np.where(mine[:, None], own * ratio[:, None], rows - mean)
        squares[:, index] = product(off, off) + share * product(off, own) ** 2 / left
        squares[mine & (size == 1), index] = np.inf
    return np.asarray(np.sqrt(np.maximum(0, squares.min(axis=1))))
