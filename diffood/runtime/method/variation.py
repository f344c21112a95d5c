"""Whether a classifier tells images apart: what share of its logits differs between them. Arithmetic alone.

Measured on the zoo's validation images (docs/calibrating.md): 0.94, and 0.16 to 0.33 on those of one class. Fed with
pixels on a wrong scale, the same classifier has 0.001 (--mean 127.5 --std 63) or 0.02 (a scale 255 times too small).
"""

import numpy as np

from diffood.runtime.method.scoring import Array, Float

CONSTANT = 0.005  # below, images make no difference: scores would be those of rounding
LITTLE = 0.05  # below, something is odd, but a fixed camera that looks at one thing may be so
FEWEST = 16  # images from which the share says something
WRONG_SCALE = (
    "Most often it is fed on a wrong scale: --mean and --std of `diffood export` are for pixels in 0..1, not 0..255"
)


class LogitVariation:
    """Mean and deviation of logits over images, one image at a time (Welford 1962), each less its own mean."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Float = np.zeros(1)
        self._squares: Float = np.zeros(1)

    def add(self, logits: Array) -> None:
        """Take the logits [K] of one image."""
        centred = logits.astype(np.float64) - logits.mean(dtype=np.float64)
        self.count += 1
        off = centred - self._mean
        self._mean = self._mean + off / self.count
        self._squares = self._squares + off * (centred - self._mean)

    @property
    def share(self) -> float:
        """Deviation between images over that between classes and images, in [0, 1]; 1 where logits are all the same."""
        between = float(np.mean(self._squares)) / max(1, self.count)
        whole = between + float(np.var(self._mean))
        return float(np.sqrt(between / whole)) if whole else 1.0

    @property
    def constant(self) -> bool:
        """Whether images make no difference to the classifier, from FEWEST on."""
        return self.count >= FEWEST and self.share < CONSTANT

    @property
    def little(self) -> bool:
        """Whether they make less than usual, from FEWEST on."""
        return self.count >= FEWEST and self.share < LITTLE
