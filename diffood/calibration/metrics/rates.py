"""Measured rates on labelled scores, in OpenOOD's conventions and with intervals; no thresholds are fitted here.

Scores are float64 [n], higher means more out-of-distribution (OOD); OOD is the positive class unless a name says
otherwise. Scores that are empty, not finite or not [n] are refused with a UsageError that names the array. The curves
are those of openood/evaluators/metrics.py of OpenOOD 1.5 (`auc_and_fpr_recall`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import betainccinv, betaincinv
from scipy.stats import rankdata

from diffood.calibration.checked import FloatArray, checked_pair, checked_scores, require_share
from diffood.errors import UsageError

_CAUGHT_PERCENT = 95
"""The operating point of both FPR@95, as a whole number so that 95 % of a count is exact."""


@dataclass(frozen=True)
class FalseAlarms:
    """How many in-distribution images a threshold flags: rate = flagged / count, interval its Clopper-Pearson 95 %."""

    rate: float
    interval: tuple[float, float]
    flagged: int
    count: int


@dataclass(frozen=True)
class Rates:
    """What OOD images are against in-distribution ones, or the mean of that over several sets; all in [0, 1].

    detection_rate is the share of OOD images above the threshold. The other fields are the functions of the same name;
    they do not depend on the threshold.
    """

    auroc: float
    aupr_in: float
    aupr_out: float
    fpr_at_95_detection: float
    missed_at_95_kept: float
    detection_rate: float


@dataclass(frozen=True)
class SetMetrics(Rates):
    """One OOD set of count images against the test set; detection_interval: Clopper-Pearson 95 % of detection_rate."""

    detection_interval: tuple[float, float]
    count: int


def auroc(ind: FloatArray, ood: FloatArray) -> float:
    """Probability that an OOD score is above an InD score, ties counted half: the area under the ROC curve.

    Computed from midranks (Mann-Whitney U), which is exact with ties. Raises UsageError for unusable scores.
    """
    ind, ood = checked_pair(ind, ood)
    return _auroc(positive=ood, negative=ind)


def aupr_out(ind: FloatArray, ood: FloatArray) -> float:
    """Area under the precision-recall curve with OOD as the positive class.

    By the trapezoid rule from (recall 0, precision 1), as OpenOOD does; average precision is a different sum and a
    slightly different number. It depends on the sizes of the two sets. Raises UsageError for unusable scores.
    """
    ind, ood = checked_pair(ind, ood)
    return _aupr(positive=ood, negative=ind)


def aupr_in(ind: FloatArray, ood: FloatArray) -> float:
    """Area under the precision-recall curve with InD as the positive class and scores negated; see `aupr_out`."""
    ind, ood = checked_pair(ind, ood)
    return _aupr(positive=-ind, negative=-ood)


def fpr_at_95_detection(ind: FloatArray, ood: FloatArray) -> float:
    """Share of InD flagged when at least 95 % of OOD is caught: OpenOOD's FPR@95.

    Images are flagged at score >= v, where v is the highest score that catches 95 % (the convention of a ROC curve):
    an InD score that ties with v counts as a false alarm. Equal to OpenOOD's number except for some tied scores,
    where scikit-learn's roc_curve drops the point on the way and OpenOOD then takes a later, worse one.
    Raises UsageError for unusable scores.
    """
    ind, ood = checked_pair(ind, ood)
    return _taken_at_95(positive=ood, negative=ind)


def rank_at_95(count: int) -> int:
    """Ascending rank, from 0, of the highest of count scores that has 95 % of them at or above it."""
    return count + (-_CAUGHT_PERCENT * count) // 100


def missed_at_95_kept(ind: FloatArray, ood: FloatArray) -> float:
    """Share of OOD accepted when at least 95 % of InD is kept: the other number that papers call FPR@95.

    Images are kept at score <= v, where v is the lowest score that keeps 95 %: an OOD score that ties with v is missed,
    as it is by a threshold, which flags above its value only. Raises UsageError for unusable scores.
    """
    ind, ood = checked_pair(ind, ood)
    return _taken_at_95(positive=-ind, negative=-ood)


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of a share, from hits out of n independent trials: it covers with at least `confidence`.

    Clopper and Pearson 1934: quantiles (1 -+ confidence) / 2 of Beta(hits, n - hits + 1) and Beta(hits + 1, n - hits).
    Raises UsageError unless 0 <= hits <= n, n >= 1 and 0 < confidence < 1.
    """
    require_share("confidence", confidence)
    if n < 1 or not 0 <= hits <= n:
        raise UsageError(f"{hits} hits in {n} trials; expected at least one trial and between 0 and n hits.")
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betainccinv(hits + 1, n - hits, tail)) if hits < n else 1.0
    return low, high


def false_alarms(ind_scores: FloatArray, threshold: float | FloatArray) -> FalseAlarms:
    """Share of in-distribution scores [n] above the threshold, one for all or [n], with its 95 % interval.

    The interval speaks for images that took no part in the calibration. Raises UsageError for unusable scores.
    """
    ind = checked_scores("In-distribution scores", ind_scores)
    flagged = int(np.count_nonzero(ind > threshold))
    return FalseAlarms(
        rate=flagged / ind.size, interval=clopper_pearson(flagged, ind.size), flagged=flagged, count=ind.size
    )


def set_metrics(ind: FloatArray, ood: FloatArray, threshold: float | FloatArray) -> SetMetrics:
    """All metrics of one OOD set [k] against the in-distribution test set [n], detection being score > threshold.

    threshold: one for all, or [k], each OOD image's own. Raises UsageError for unusable scores.
    """
    ind, ood = checked_pair(ind, ood)
    detected = int(np.count_nonzero(ood > threshold))
    return SetMetrics(
        auroc=_auroc(positive=ood, negative=ind),
        aupr_in=_aupr(positive=-ind, negative=-ood),
        aupr_out=_aupr(positive=ood, negative=ind),
        fpr_at_95_detection=_taken_at_95(positive=ood, negative=ind),
        missed_at_95_kept=_taken_at_95(positive=-ind, negative=-ood),
        detection_rate=detected / ood.size,
        detection_interval=clopper_pearson(detected, ood.size),
        count=ood.size,
    )


def _auroc(positive: FloatArray, negative: FloatArray) -> float:
    ranks = rankdata(np.concatenate([positive, negative]))
    smallest_rank_sum = positive.size * (positive.size + 1) / 2
    return float((ranks[: positive.size].sum() - smallest_rank_sum) / (positive.size * negative.size))


def _aupr(positive: FloatArray, negative: FloatArray) -> float:
    scores = np.concatenate([positive, negative])
    descending = np.argsort(-scores, kind="stable")
    # Tied scores are taken together: the curve has a point only where the score changes, and at the end.
    taken = np.append(np.flatnonzero(np.diff(scores[descending])), scores.size - 1) + 1
    hits = np.cumsum(descending < positive.size)[taken - 1]
    precision = np.concatenate([[1.0], hits / taken])
    recall = np.concatenate([[0.0], hits / positive.size])
    return float(np.dot(np.diff(recall), (precision[1:] + precision[:-1]) / 2))


def _taken_at_95(positive: FloatArray, negative: FloatArray) -> float:
    """Share of the negatives at or above the highest score that has 95 % of the positives at or above it."""
    rank = rank_at_95(positive.size)
    return float(np.mean(negative >= np.partition(positive, rank)[rank]))
