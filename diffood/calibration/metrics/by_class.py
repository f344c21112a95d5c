"""Measures false alarms by predicted class, with intervals and a test of each class. Fits nothing."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from diffood.calibration.checked import FloatArray, IntArray, checked_classes, checked_scores, require_share
from diffood.calibration.metrics.rates import clopper_pearson


@dataclass(frozen=True)
class ClassAlarms:
    """False alarms among the InD images that the classifier predicts to be of one class.

    Attributes:
        predicted: The class.
        count: Its images.
        flagged: Those of them above the threshold.
        rate: flagged / count.
        interval: Clopper-Pearson 95 % interval of the rate, for this class alone.
        p_value: Of "the rate of this class is at most alpha", adjusted by Holm for all classes of the table: listing
            every class with a p-value of at most 5 % as too high names a wrong one in at most 5 % of tables.
    """

    predicted: int
    count: int
    flagged: int
    rate: float
    interval: tuple[float, float]
    p_value: float


def alarms_by_class(
    ind_scores: FloatArray, predicted: IntArray, threshold: float | FloatArray, alpha: float
) -> tuple[ClassAlarms, ...]:
    """False alarms (score > threshold) of each predicted class, the highest rate first.

    Equal rates are ordered by evidence (smaller p-value), then by class. Classes without an image are left out.

    Args:
        ind_scores: Of InD test images that had no part in the calibration, float64 [n].
        predicted: Their predicted classes, int64 [n].
        threshold: One for all images, or float64 [n], each image's own.
        alpha: The false-alarm rate that each class is tested against, in (0, 1).

    Raises:
        UsageError: Scores or classes are unusable, or alpha is outside (0, 1).
    """
    require_share("alpha", alpha)
    scores = checked_scores("In-distribution scores", ind_scores)
    predicted = checked_classes("Predicted classes", predicted, scores.size)
    counts = np.bincount(predicted)
    flags = np.bincount(predicted[scores > threshold], minlength=counts.size)
    classes = np.flatnonzero(counts)
    # the exact binomial test of "at most alpha": the probability of at least as many flagged images
    p_values = holm(np.asarray(binom.sf(flags[classes] - 1, counts[classes], alpha)).tolist())
    rows = [
        ClassAlarms(
            predicted=int(k),
            count=int(counts[k]),
            flagged=int(flags[k]),
            rate=float(flags[k] / counts[k]),
            interval=clopper_pearson(int(flags[k]), int(counts[k])),
            p_value=p_value,
        )
        for k, p_value in zip(classes, p_values, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: (-row.rate, row.p_value, row.predicted)))


def holm(p_values: list[float]) -> list[float]:
    """Adjusted p-values, in the order given: Holm 1979, valid whatever the dependence between the tests.

    The i-th smallest of K is multiplied by K - i + 1; an adjusted value is at least that of any smaller p-value, and at
    most 1.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted
