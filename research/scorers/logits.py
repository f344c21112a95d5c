"""Detectors that look at logits alone."""

import numpy as np
from scipy.special import log_softmax, softmax

from diffood.runtime.method.scoring import Float
from research.scorers.given import FittingImages, Score

GEN_GAMMA = 0.1  # the paper's; with its M of 100 classes, more than there are here
SMALLEST = 1e-7  # of a probability, as in pytorch-ood: a power of 0 has no slope


def gen(logits: Float) -> Float:
    """Generalised entropy, a sum of p^gamma·(1 - p)^gamma: Liu et al. 2023, "GEN", CVPR; [N] of [N, K].

    Divided by K, as pytorch-ood does.
    """
    p = np.clip(softmax(logits.astype(np.float64), axis=1), SMALLEST, 1 - SMALLEST)
    return np.asarray((p**GEN_GAMMA * (1 - p) ** GEN_GAMMA).mean(1))


def fit_klm(given: FittingImages) -> Score:
    """KL divergence to the nearest class's mean prediction: Hendrycks et al. 2022, arXiv 1911.11132.

    Means are over the validation images predicted as a class, as in the paper.
    """
    p, predicted = softmax(given.validation.logits, axis=1), given.validation.predicted
    typical = np.log(np.stack([p[predicted == label].mean(0) for label in np.unique(predicted)]))

    def divergence(logits: Float) -> Float:
        logarithm = log_softmax(logits.astype(np.float64), axis=1)
        p = np.exp(logarithm)
        return np.asarray(((p * logarithm).sum(1, keepdims=True) - p @ typical.T).min(1))

    return lambda images: divergence(images.logits)
