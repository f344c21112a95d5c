"""Detectors that measure where features lie: among training features, in a subspace, or against decision boundaries."""

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from diffood.runtime.method.scoring import Float, unit
from research.scorers.given import ClassifiedImages, FittingImages, Score

KNN_NEIGHBOUR = 50  # OpenOOD's and pytorch-ood's default; the paper's for CIFAR-10
NNGUIDE_NEIGHBOURS = 100  # OpenOOD's
NCI_ALPHA = 0.0001  # OpenOOD's


class Gaussians:
    """A Gaussian around each class mean with one covariance [D, D], of features [N, D] and labels [N].

    A covariance without full rank is inverted where it has any: relu leaves features that are always 0.
    """

    def __init__(self, features: Float, labels: npt.NDArray[np.integer]) -> None:
        features = features.astype(np.float64)
        self.means = np.stack([features[labels == label].mean(0) for label in np.unique(labels)])
        centred = features - self.means[np.unique(labels, return_inverse=True)[1]]
        self.precision = np.linalg.pinv(centred.T @ centred / len(centred), hermitian=True)

    def distances(self, features: Float) -> Float:
        """Squared Mahalanobis distance [N, C] of features [N, D] to each mean."""
        centred = features.astype(np.float64)[:, None] - self.means
        return np.asarray(np.einsum("ncd,de,nce->nc", centred, self.precision, centred, optimize=True))


def fit_mds(given: FittingImages) -> Score:
    """Squared Mahalanobis distance to the nearest class mean: Lee et al. 2018, arXiv 1807.03888."""
    classes = Gaussians(given.trained.features, given.labels)
    return lambda images: classes.distances(images.features).min(1)


def fit_mds_normalised(given: FittingImages) -> Score:
    """Mahalanobis++: MDS on features divided by their L2 norm. Mueller and Hein 2025, arXiv 2505.18032."""
    classes = Gaussians(unit(given.trained.features), given.labels)
    return lambda images: classes.distances(unit(images.features)).min(1)


def fit_rmds(given: FittingImages) -> Score:
    """MDS less the distance under one Gaussian of all images: Ren et al. 2021, arXiv 2106.09022."""
    classes = Gaussians(given.trained.features, given.labels)
    background = Gaussians(given.trained.features, np.zeros_like(given.labels))
    return lambda images: (classes.distances(images.features) - background.distances(images.features)).min(1)


def fit_knn(given: FittingImages) -> Score:
    """Distance to the KNN_NEIGHBOUR-th nearest training feature, all of length 1: Sun et al. 2022, arXiv 2204.06507."""
    bank = unit(given.trained.features)

    def distance(images: ClassifiedImages) -> Float:
        nearest = np.partition(unit(images.features) @ bank.T, -KNN_NEIGHBOUR, axis=1)[:, -KNN_NEIGHBOUR]
        return np.asarray(np.sqrt(np.maximum(0, 2 - 2 * nearest)))

    return distance


def fit_vim(given: FittingImages) -> Score:
    """Residual outside the principal subspace, scaled as a logit, less energy: Wang et al. 2022, arXiv 2203.10807.

    The subspace has half of the dimensions, as in the authors' code for fewer than 768.
    """
    head, features = given.head, given.trained.features.astype(np.float64)
    origin = -np.linalg.pinv(head.weight) @ head.bias
    centred = features - origin
    _, vectors = np.linalg.eigh(centred.T @ centred / len(centred))  # eigenvalues ascend
    residual = vectors[:, : features.shape[1] - features.shape[1] // 2]
    alpha = given.trained.logits.max(1).mean() / np.linalg.norm(centred @ residual, axis=1).mean()

    def score(images: ClassifiedImages) -> Float:
        outside = np.linalg.norm((images.features - origin) @ residual, axis=1)
        return np.asarray(alpha * outside - logsumexp(images.logits, axis=1))

    return score


def fit_neco(given: FittingImages) -> Score:
    """Minus the share of a standardised feature's norm in the first K principal components.

    Ben Ammar et al. 2024, arXiv 2310.06823; for a ResNet not multiplied by the largest logit, as in their code.
    K, the number of classes: class means that collapse span K - 1 dimensions.
    """
    features = given.trained.features.astype(np.float64)
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale == 0, 1.0, scale)
    standard = (features - mean) / scale
    _, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    principal = vectors[:, -len(given.head.bias) :]

    def score(images: ClassifiedImages) -> Float:
        standard = (images.features - mean) / scale
        return np.asarray(-np.linalg.norm(standard @ principal, axis=1) / np.linalg.norm(standard, axis=1))

    return score


def fit_fdbd(given: FittingImages) -> Score:
    """Minus the mean distance to decision boundaries over that to the mean feature: Liu and Qin 2024, arXiv 2312.11536.

    The distance to the boundary with class c is |logit - logit_c| / |w - w_c|.
    """
    mean, weight = given.trained.features.astype(np.float64).mean(0), given.head.weight
    between = np.linalg.norm(weight[:, None] - weight, axis=2) + np.eye(len(weight))

    def score(images: ClassifiedImages) -> Float:
        gap = images.logits.max(1, keepdims=True) - images.logits
        boundary = (gap / between[images.predicted]).sum(1) / (len(weight) - 1)
        return np.asarray(-boundary / np.linalg.norm(images.features - mean, axis=1))

    return score


def fit_nnguide(given: FittingImages) -> Score:
    """Minus energy times mean similarity to the nearest training features, weighted by their energies.

    Park et al. 2023, "Nearest Neighbor Guidance for Out-of-Distribution Detection", ICCV.
    """
    bank = unit(given.trained.features) * logsumexp(given.trained.logits, axis=1)[:, None]

    def score(images: ClassifiedImages) -> Float:
        similarity = unit(images.features) @ bank.T
        nearest = np.partition(similarity, -NNGUIDE_NEIGHBOURS, axis=1)[:, -NNGUIDE_NEIGHBOURS:]
        return np.asarray(-logsumexp(images.logits, axis=1) * nearest.mean(1))

    return score


def fit_nci(given: FittingImages) -> Score:
    """Minus the projection of the predicted class's weights on the centred feature, and minus alpha·|feature|_1.

    Liu and Qin 2025, arXiv 2311.01479.
    """
    mean = given.trained.features.astype(np.float64).mean(0)

    def score(images: ClassifiedImages) -> Float:
        centred = images.features - mean
        along = (centred * given.head.weight[images.predicted]).sum(1) / np.linalg.norm(centred, axis=1)
        return np.asarray(-along - NCI_ALPHA * np.abs(images.features).sum(1))

    return score
