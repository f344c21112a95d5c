"""How far an image's features are from those of a bank of in-distribution images."""

import numpy as np

from diffood.runtime.method.scoring import Array, unit
from diffood.runtime.method.witnesses.definition import WitnessDefinition

NEIGHBOUR = 5  # of the bank, the distance to which is measured


def knn(features: Array, bank: Array, in_bank: bool = False) -> float:
    """Distance of unit features [D] to the NEIGHBOUR-th nearest of a bank's unit rows [B, D], in 0 … 2.

    Sun et al. 2022 (arXiv 2204.06507). The farthest where the bank is smaller; in_bank: the image's own row, which is
    nearest to it, does not count.
    """
    similarity = bank @ unit(features).astype(np.float32)
    rank = min(NEIGHBOUR + in_bank, len(similarity))
    nearest = np.partition(similarity, -rank)[-rank].astype(np.float64)
    return float(np.sqrt(np.maximum(0, 2 - 2 * nearest)))  # Python's max would make NaN a distance of 0


KNN = WitnessDefinition(
    "knn",
    "How far the image's features are from those of known in-distribution images.",
    of_features=knn,
)
