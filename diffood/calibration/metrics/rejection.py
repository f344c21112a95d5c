"""Measures the classifier on images kept by their OOD score: accuracy-rejection and open-set (OSCR) curves.

Images are kept from the lowest OOD score up. Images with the same score are kept together, so a curve has a point only
where the score changes and does not depend on the order of the images.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

from diffood.calibration.checked import FloatArray, IntArray, checked_classes, checked_pair, checked_scores
from diffood.calibration.metrics.rates import clopper_pearson

KEPT = (0.95, 0.9, 0.8)
"""Shares of the images kept for which the accuracy is reported."""


@dataclass(frozen=True)
class RejectionCurve:
    """Accuracy of the kept images against the share kept.

    Attributes:
        kept: Shares of the images, float64 [p], from 1 down to the share with the lowest score.
        accuracy: Of the images kept, float64 [p].
        aurc: Area under the risk-coverage curve, risk being 1 - accuracy: the mean, over all images, of the risk of the
            images that score no higher than it (Geifman and El-Yaniv 2017; Geifman, Uziel and El-Yaniv 2019, eq. 2 and
            3). Lower is better. 1 - aurc is the area under the accuracy-rejection curve, also called AURRA.
        excess_aurc: aurc minus that of a score that keeps every correct image before any wrong one (E-AURC, Geifman et
            al. 2019, approximated there, exact here); 0 is best.
    """

    kept: FloatArray
    accuracy: FloatArray
    aurc: float
    excess_aurc: float

    def accuracy_at(self, kept: float) -> float:
        """Accuracy when at least this share is kept, in [0, 1], and no more images than that takes."""
        return float(self.accuracy[np.flatnonzero(self.kept >= kept)[-1]])


@dataclass(frozen=True)
class OscrCurve:
    """Correct classification rate against false positive rate, one point per score and (0, 0) at the start.

    InD is the positive class here, unlike elsewhere in this package. Both rates rise, to the accuracy and to 1.

    Attributes:
        false_positive_rate: At a score v, the share of OOD images that score at most v and so are accepted, float64
            [p].
        correct_classification_rate: The share of all InD images that score at most v and are classified correctly,
            float64 [p].
        area: Under the curve, by the trapezoid rule; at most the accuracy.
    """

    false_positive_rate: FloatArray
    correct_classification_rate: FloatArray
    area: float


@dataclass(frozen=True)
class Rejection:
    """How rejecting images by their OOD score affects the classifier.

    Attributes:
        interval: Clopper-Pearson 95 % interval of the accuracy on all InD images.
        curve: Of the InD images alone.
        oscr: Against all OOD images together; None where there are none.
    """

    interval: tuple[float, float]
    curve: RejectionCurve
    oscr: OscrCurve | None

    @property
    def accuracy(self) -> float:
        """On all InD images, without rejection."""
        return float(self.curve.accuracy[0])

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, without the curves."""
        return {
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.interval),
            "accuracy_at_kept": {f"{kept:.2f}": self.curve.accuracy_at(kept) for kept in KEPT},
            "aurc": self.curve.aurc,
            "excess_aurc": self.curve.excess_aurc,
            "oscr": self.oscr.area if self.oscr else None,
        }


def measure_rejection(
    scores: FloatArray, labels: IntArray, predicted: IntArray, ood: FloatArray | None = None
) -> Rejection:
    """Both curves for InD scores [n] with true and predicted classes [n], and OOD scores [m] if there are any.

    Raises UsageError for unusable scores and classes.
    """
    curve = rejection_curve(scores, labels, predicted)
    open_set = None if ood is None else oscr(scores, labels, predicted, ood)
    return Rejection(clopper_pearson(int(np.count_nonzero(labels == predicted)), len(labels)), curve, open_set)


def rejection_curve(scores: FloatArray, labels: IntArray, predicted: IntArray) -> RejectionCurve:
    """Accuracy-rejection curve of InD images with OOD scores [n], true classes [n] and predicted classes [n].

    Raises UsageError for unusable scores and classes.
    """
    scores, correct = _checked_predictions(scores, labels, predicted)
    count, order = scores.size, np.argsort(scores, kind="stable")
    taken = np.append(np.flatnonzero(np.diff(scores[order])) + 1, count)
    right = np.cumsum(correct[order])
    accuracy = right[taken - 1] / taken
    share_of_images = np.diff(taken, prepend=0) / count
    aurc = float(np.dot(share_of_images, 1 - accuracy))
    ranks = np.arange(1, count + 1)
    best = float(np.mean(np.maximum(ranks - right[-1], 0) / ranks))
    return RejectionCurve(kept=taken[::-1] / count, accuracy=accuracy[::-1], aurc=aurc, excess_aurc=aurc - best)


def oscr(scores: FloatArray, labels: IntArray, predicted: IntArray, ood: FloatArray) -> OscrCurve:
    """Open-set classification rate of InD scores [n] with true and predicted classes [n] against OOD scores [m].

    Dhamija, Guenther and Boult 2018, "Reducing network agnostophobia", sec. 4, with an OOD score instead of their
    probability of the predicted class, as in Vaze et al. 2022. They accept InD below a limit and OOD at or below it;
    here both are accepted at or below it, so that a tie counts half in the area. Raises UsageError for unusable scores
    and classes.
    """
    scores, correct = _checked_predictions(scores, labels, predicted)
    scores, ood = checked_pair(scores, ood)
    limits = np.unique(np.concatenate([scores, ood]))
    right = np.searchsorted(np.sort(scores[correct]), limits, side="right") / scores.size
    accepted = np.searchsorted(np.sort(ood), limits, side="right") / ood.size
    right, accepted = np.concatenate([[0.0], right]), np.concatenate([[0.0], accepted])
    area = float(trapezoid(right, accepted))
    return OscrCurve(false_positive_rate=accepted, correct_classification_rate=right, area=area)


def _checked_predictions(
    scores: FloatArray, labels: IntArray, predicted: IntArray
) -> tuple[FloatArray, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    scores = checked_scores("In-distribution scores", scores)
    labels = checked_classes("True classes", labels, scores.size)
    return scores, np.asarray(labels == checked_classes("Predicted classes", predicted, scores.size))
