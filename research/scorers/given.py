"""What detectors are fitted on and what they score. Computes nothing but a linear layer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.scoring import Float


@dataclass(frozen=True)
class ClassifiedImages:
    """What a classifier says of N images.

    Attributes:
        logits: float [N, K].
        features: Input of its last layer, float [N, D].
        perturbed: Features of the images with the perturbation of AdaSCALE, float [N, D]; no other detector needs them.
    """

    logits: Float
    features: Float
    perturbed: Float | None = None

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Index [N] of the largest logit."""
        return np.asarray(self.logits.argmax(1))


@dataclass(frozen=True)
class LinearHead:
    """The last layer: weight [K, D] and bias [K]."""

    weight: Float
    bias: Float

    def logits(self, features: Float) -> Float:
        """Logits [N, K] of features [N, D]."""
        return np.asarray(features @ self.weight.T + self.bias)


@dataclass(frozen=True)
class FittingImages:
    """What a detector is fitted on.

    Attributes:
        trained: Images that the classifier was trained on.
        labels: Their classes, int [N].
        validation: Others, for detectors whose authors fit on these: KLM and AdaSCALE.
        head: The classifier's last layer.
    """

    trained: ClassifiedImages
    labels: npt.NDArray[np.integer]
    validation: ClassifiedImages
    head: LinearHead


Score = Callable[[ClassifiedImages], Float]
"""Gives a score [N] of each image, higher for what is more out-of-distribution."""
