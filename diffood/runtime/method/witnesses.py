"""Witnesses: what one pass over an image says against it, one plain function each. Combines and fits nothing.

Every witness is higher for what is more out-of-distribution. All come from one pass: the classifier on the image, the
denoised images, the classifier on those.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.scoring import Float, softmax_confidence, unit

Array = npt.NDArray[np.float32]
Witness = Literal["jump", "reconstruction", "logit_norm", "energy", "max_logit", "msp", "knn"]

BLUR = 1 / 28  # of the shorter side; one pixel of the zoo's images, where it was chosen
NEIGHBOUR = 5  # of the bank, the distance to which is measured


@dataclass(frozen=True)
class Evidence:
    """What a pass leaves of one image.

    x float32 [C, H, W] and denoised float32 [R, T, C, H, W] in [-1, 1]; logits float32 [K], features float32 [D] of the
    image itself; jumps float64 [R, T]: by repeat and start time, NaN where no witness asks for them. R is how many
    repeats were done, which may be none.
    """

    x: Array
    logits: Array
    features: Array
    jumps: Float
    denoised: Array

    @property
    def repeats(self) -> int:
        """How many repeats were done."""
        return len(self.jumps)

    @property
    def by_start(self) -> Float:
        """The jump [T] at each start time, mean over repeats; NaN without one."""
        return np.asarray(self.jumps.mean(axis=0)) if self.repeats else np.full(self.jumps.shape[1], np.nan)

    def first(self, repeats: int) -> "Evidence":
        """What there would be had the pass stopped after so many repeats."""
        return replace(self, jumps=self.jumps[:repeats], denoised=self.denoised[:repeats])

    @property
    def predicted(self) -> int:
        """Index of the largest logit."""
        return int(self.logits.argmax())

    @property
    def confidence(self) -> float:
        """Largest softmax probability."""
        return float(softmax_confidence(self.logits[None])[0])


def reconstruction(x: Array, denoised: Array) -> float:
    """Root mean square difference of an image [C, H, W] and its denoised selves [R, T, C, H, W], both blurred.

    After Graham et al. 2023 (arXiv 2211.07740), who compare whole images. No denoised image has the texture of the
    original; blurred by a Gaussian of BLUR of the shorter side, what differs is the object.
    """
    height, width = x.shape[-2:]
    difference = denoised.astype(np.float64) - x
    deviation = BLUR * min(height, width)
    blurred = _gaussian(height, deviation) @ difference @ _gaussian(width, deviation).T
    return float(np.sqrt(np.mean(blurred**2)))


@lru_cache(maxsize=8)
def _gaussian(size: int, deviation: float) -> Float:
    """The Gaussian blur of a line of so many pixels, mirrored at its ends, as a matrix [size, size]."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(np.eye(size), deviation, axis=0))


def logit_norm(logits: Array) -> float:
    """Minus the length of the logits [K] about their mean: flat logits, whatever their height, are suspicious."""
    wide = logits.astype(np.float64)
    return -float(np.linalg.norm(wide - wide.mean()))


def energy(logits: Array) -> float:
    """Minus the log of the summed exponentials of the logits [K] (Liu et al. 2020, arXiv 2010.03759, eq. 4, T = 1)."""
    return -float(np.logaddexp.reduce(logits.astype(np.float64)))


def knn(features: Array, bank: Array, *, in_bank: bool = False) -> float:
    """Distance of unit features [D] to the NEIGHBOUR-th nearest of a bank's unit rows [B, D], in 0 … 2.

    Sun et al. 2022 (arXiv 2204.06507). The farthest where the bank is smaller; in_bank: the image's own row, which is
    nearest to it, does not count.
    """
    similarity = bank @ unit(features).astype(np.float32)
    rank = min(NEIGHBOUR + in_bank, len(similarity))
    nearest = np.partition(similarity, -rank)[-rank].astype(np.float64)
    return float(np.sqrt(np.maximum(0, 2 - 2 * nearest)))  # Python's max would make NaN a distance of 0


_OF_ONE_IMAGE: dict[Witness, Callable[[Evidence], float]] = {
    "jump": lambda evidence: float(evidence.by_start.mean()),
    "reconstruction": lambda evidence: reconstruction(evidence.x, evidence.denoised),
    "logit_norm": lambda evidence: logit_norm(evidence.logits),
    "energy": lambda evidence: energy(evidence.logits),
    "max_logit": lambda evidence: -float(evidence.logits.max()),
    "msp": lambda evidence: -evidence.confidence,
}


_OF_DENOISED = frozenset[Witness](("jump", "reconstruction"))


def measurable(names: tuple[Witness, ...], repeats: int) -> tuple[Witness, ...]:
    """Those of the names that can be measured after so many repeats: without one, the classifier's own."""
    return names if repeats else tuple(name for name in names if name not in _OF_DENOISED)


def measure(names: tuple[Witness, ...], evidence: Evidence, bank: Array | None = None) -> Float:
    """Values float64 [W] of the named witnesses; "knn" needs a bank of unit rows [B, D]."""
    values = []
    for name in names:
        if name == "knn":
            assert bank is not None
            values.append(knn(evidence.features, bank))
        else:
            values.append(_OF_ONE_IMAGE[name](evidence))
    return np.array(values, np.float64)
