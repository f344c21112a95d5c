"""Detectors that change features, or the weights of the last layer, before they look at logits.

The papers differ in the layer whose activations are shaped; here it is the pooled one, as in OpenOOD.
"""

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.special import logsumexp, softmax

from diffood.runtime.method.scoring import Float
from research.scorers.given import ClassifiedImages, FittingImages, LinearHead, Score

REACT_SHARE = 0.9  # OpenOOD's and pytorch-ood's; the paper's
ASH_SHARE = 0.9  # OpenOOD's; the paper's for ASH-S
SCALE_SHARE = 0.85  # OpenOOD's; the paper's
ADASCALE_SHARES = 0.75, 0.85  # these five are of OpenOOD's adascale_a
ADASCALE_LARGEST, ADASCALE_LARGEST_SHIFT, ADASCALE_LAMBDA = 0.05, 0.01, 10.0
WEIPER_REPEATS, WEIPER_DISTANCE, WEIPER_BINS = 100, 1.8, 100  # the authors' for CIFAR-10
WEIPER_WEIGHT, WEIPER_MSP_WEIGHT = 2.5, 0.1
WEIPER_SMOOTHING, WEIPER_SMOOTHING_PERTURBED = 4, 15
WEIPER_FLOOR, WEIPER_FLOOR_PERTURBED = 0.01, 0.025


def fit_react(given: FittingImages) -> Score:
    """Energy of features clipped at a quantile of all training activations: Sun et al. 2021, arXiv 2111.12797."""
    limit = np.quantile(given.trained.features, REACT_SHARE)
    return lambda images: minus_energy(given.head, np.minimum(images.features, limit))


def fit_ash(given: FittingImages) -> Score:
    """Energy of features pruned to the largest and scaled up (ASH-S): Djurisic et al. 2023, arXiv 2209.09858."""

    def shaped(features: Float) -> Float:
        kept = _largest(features, np.full(len(features), ASH_SHARE))
        return np.asarray(kept * np.exp(features.sum(1) / kept.sum(1))[:, None])

    return lambda images: minus_energy(given.head, shaped(images.features))


def fit_scale(given: FittingImages) -> Score:
    """Energy of features scaled as in ASH-S but not pruned: Xu et al. 2024, arXiv 2310.00227."""
    return lambda images: minus_energy(given.head, scaled(images.features, np.full(len(images.features), SCALE_SHARE)))


def scaled(features: Float, shares: Float) -> Float:
    """Features [N, D] times the exponential of their sum over that of the largest, the share [N] left out."""
    return np.asarray(features * np.exp(features.sum(1) / _largest(features, shares).sum(1))[:, None])


def fit_adascale(given: FittingImages) -> Score:
    """SCALE with a share of its own for every image: Regmi 2025, arXiv 2503.08023 (AdaSCALE-A).

    An image whose largest features are steady under a small perturbation is scaled by more. What is usual is taken
    from the validation images.
    """
    usual = np.sort(_unsteadiness(given.validation))
    low, high = ADASCALE_SHARES

    def score(images: ClassifiedImages) -> Float:
        above = 1 - np.searchsorted(usual, _unsteadiness(images), side="right") / len(usual)
        return minus_energy(given.head, scaled(images.features, low + above * (high - low)))

    return score


def _unsteadiness(images: ClassifiedImages) -> Float:
    """Q' [N] of the paper: by how much the largest features move, and how large they are afterwards."""
    assert images.perturbed is not None, "AdaSCALE needs features of perturbed images"
    order, width = np.argsort(-images.features, axis=1, kind="stable"), images.features.shape[1]
    most = order[:, : int(width * ADASCALE_LARGEST)]
    moved = order[:, : int(width * ADASCALE_LARGEST_SHIFT)]
    shift = np.abs(images.features - images.perturbed)
    after = np.take_along_axis(np.maximum(images.perturbed, 0), most, 1).sum(1)
    return np.asarray(after + ADASCALE_LAMBDA * np.take_along_axis(shift, moved, 1).sum(1))


def fit_weiper(given: FittingImages) -> Score:
    """WeiPer+KLD: Granz et al. 2024, arXiv 2405.17164, with the authors' choice for CIFAR-10.

    Features, and logits of the last layer with perturbed weights, are seen as a sample of numbers of each image; its
    histogram is compared with the mean one of training images. The perturbed layers' mean MSP is subtracted.
    """
    head, generator = given.head, np.random.default_rng(0)
    draws = generator.standard_normal((WEIPER_REPEATS, *head.weight.shape))
    draws *= WEIPER_DISTANCE * np.linalg.norm(head.weight, axis=1)[:, None] / np.linalg.norm(draws, axis=2)[..., None]
    perturbed = LinearHead((head.weight + draws).reshape(-1, head.weight.shape[1]), np.tile(head.bias, len(draws)))
    plain = _TypicalHistogram(given.trained.features, WEIPER_SMOOTHING, WEIPER_FLOOR)
    projected = _TypicalHistogram(
        perturbed.logits(given.trained.features), WEIPER_SMOOTHING_PERTURBED, WEIPER_FLOOR_PERTURBED
    )

    def score(images: ClassifiedImages) -> Float:
        logits = perturbed.logits(images.features)
        sure = softmax(logits.reshape(len(logits), len(draws), -1), axis=2).max(2).mean(1)
        divergence = plain.divergence(images.features) + WEIPER_WEIGHT * projected.divergence(logits)
        return np.asarray(divergence - WEIPER_MSP_WEIGHT * sure)

    return score


class _TypicalHistogram:
    """The mean histogram of training images' values [N, D], and the divergence of others from it."""

    def __init__(self, values: Float, smoothing: int, floor: float) -> None:
        gap = (values.max() - values.min()) / len(values)
        self.edges = np.linspace(values.min() - gap, values.max() + gap, WEIPER_BINS + 1)
        self.smoothing, self.floor = smoothing, floor
        self.typical = self._distribution(self._histograms(values).mean(0))

    def _histograms(self, values: Float) -> Float:
        """Share of an image's values [N, D] in each bin [N, B]; those outside count in none."""
        bins = np.searchsorted(self.edges, values, side="right") + np.arange(len(values))[:, None] * (WEIPER_BINS + 2)
        counts = np.bincount(bins.ravel(), minlength=len(values) * (WEIPER_BINS + 2)).reshape(len(values), -1)
        return np.asarray(counts[:, 1:-1] / values.shape[1])

    def _distribution(self, histograms: Float) -> Float:
        return np.asarray((histograms + self.floor) / (histograms + self.floor).sum(-1, keepdims=True))

    def divergence(self, values: Float) -> Float:
        """Symmetric Kullback-Leibler divergence [N]; smoothed are the images' histograms alone, as in their code."""
        # torch's "same" padding of an even kernel has the odd cell on the right, scipy's on the left
        origin = -1 if self.smoothing % 2 == 0 else 0
        smoothed = uniform_filter1d(self._histograms(values), self.smoothing, axis=1, mode="nearest", origin=origin)
        found = self._distribution(smoothed)
        return np.asarray(((found - self.typical) * np.log(found / self.typical)).sum(1))


def minus_energy(head: LinearHead, features: Float) -> Float:
    """Minus the log of the summed exponentials [N] of the logits of features [N, D]: Liu et al. 2020, 2010.03759."""
    return np.asarray(-logsumexp(head.logits(features), axis=1))


def _largest(features: Float, shares: Float) -> Float:
    """Features [N, D], zero but for the largest; of each image its share [N] is pruned."""
    width = features.shape[1]
    kept = width - np.round(width * shares).astype(int)
    places = np.argsort(np.argsort(-features, axis=1, kind="stable"), axis=1)
    return np.asarray(np.where(places < kept[:, None], features, 0.0))
