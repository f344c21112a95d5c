"""False alarms by predicted class: which classes a threshold treats worse, with intervals and a test; fits nothing."""

from dataclasses import dataclass

import numpy as np
from scipy.special import betainc

from diffood.calibration.checked import FloatArray, IntArray, checked_classes, checked_scores, require_share
from diffood.calibration.metrics.rates import clopper_pearson


@dataclass(frozen=True)
class ClassAlarms:
    """False alarms among the InD images that the classifier puts into one class: rate = flagged / count.

    interval: Clopper-Pearson 95 % for this class alone. p_value: of "the rate of this class is at most alpha", Holm's
    for all classes of the table, so that listing each class with a p-value of at most 5 % as too high names a wrong one
    in at most 5 % of tables.
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
    """False alarms, score > threshold, of each predicted class [n] among InD test scores [n], the highest rate first.

    threshold: one for all, or [n], each image's own. Equal rates are ordered by evidence (smaller p-value), then by
    class. Classes without an image are left out. The scores must have had no part in the calibration. Raises UsageError
    for unusable scores or classes and for alpha outside (0, 1).
    """
    require_share("alpha", alpha)
    scores = checked_scores("In-distribution scores", ind_scores)
    predicted = checked_classes("Predicted classes", predicted, scores.size)
    counts = np.bincount(predicted)
    flags = np.bincount(predicted[scores > threshold], minlength=counts.size)
    classes = np.flatnonzero(counts)
    p_values = holm([_p_above(int(flags[k]), int(counts[k]), alpha) for k in classes])
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
    """Adjusted p-values, in the order given: Holm 1979, valid however the tests depend on one another.

    The i-th smallest of K is multiplied by K - i + 1; none may fall below a smaller one's, nor rise above 1.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def _p_above(flagged: int, count: int, alpha: float) -> float:
    """P(at least this many of count are flagged) at a rate of alpha: the exact binomial test of "at most alpha"."""
    return float(betainc(flagged, count - flagged + 1, alpha)) if flagged > 0 else 1.0
