"""Measures rates on labelled scores, in OpenOOD's conventions and with intervals. Fits no threshold.

Scores are float64 [n], higher means more out-of-distribution (OOD); OOD is the positive class unless a name says
otherwise. Scores that are empty, not finite or not [n] are refused with a UsageError that names the array. The curves
are those of openood/evaluators/metrics.py of OpenOOD 1.5 (`auc_and_fpr_recall`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import binomtest, rankdata

from diffood.calibration.checked import FloatArray, checked_pair, checked_scores, require_share
from diffood.errors import UsageError

_PERCENT = 95
"""The operating point of both kinds of FPR@95, as an integer so that 95 % of a count is exact."""


@dataclass(frozen=True)
class FalseAlarms:
    """How many in-distribution images a threshold flags.

    Attributes:
        rate: flagged / count.
        interval: Clopper-Pearson 95 % interval of the rate.
        flagged: Images with a score above the threshold.
        count: Images in all.
    """

    rate: float
    interval: tuple[float, float]
    flagged: int
    count: int


@dataclass(frozen=True)
class Rates:
    """Detection of one OOD set against in-distribution images, or the mean over several sets; all in [0, 1].

    The attributes are the results of the functions of the same name, which do not depend on a threshold, and
    detection_rate: the share of OOD images above the threshold.
    """

    auroc: float
    aupr_in: float
    aupr_out: float
    fpr_at_95_detection: float
    missed_at_95_kept: float
    detection_rate: float


@dataclass(frozen=True)
class SetMetrics(Rates):
    """Detection of one OOD set.

    Attributes:
        detection_interval: Clopper-Pearson 95 % interval of detection_rate.
        count: Images of the set.
    """

    detection_interval: tuple[float, float]
    count: int


def auroc(ind: FloatArray, ood: FloatArray) -> float:
    """Probability that an OOD score is above an InD score, ties counted half: the area under the ROC curve.

    Computed from midranks (Mann-Whitney U), which is exact with ties. Raises UsageError for unusable scores.
    """
    ind, ood = checked_pair(ind, ood)
    ranks = rankdata(np.concatenate([ood, ind]))
    smallest_rank_sum = ood.size * (ood.size + 1) / 2
    return float((ranks[: ood.size].sum() - smallest_rank_sum) / (ood.size * ind.size))


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
    """Share of InD flagged when at least 95 % of OOD is detected: OpenOOD's FPR@95.

    Images are flagged at score >= v, where v is the highest score that detects 95 % (the convention of a ROC curve):
    an InD score that ties with v counts as a false alarm. Equal to OpenOOD's number except for some tied scores, where
    scikit-learn's roc_curve drops a collinear point and OpenOOD then takes a later, worse one.
    Raises UsageError for unusable scores.
    """
    ind, ood = checked_pair(ind, ood)
    return _taken_at_95(positive=ood, negative=ind)


def rank_at_95(count: int) -> int:
    """Ascending rank, from 0, of the highest of count scores that has 95 % of them at or above it."""
    return count + (-_PERCENT * count) // 100


def missed_at_95_kept(ind: FloatArray, ood: FloatArray) -> float:
    """Share of OOD accepted when at least 95 % of InD is kept: the other number that papers call FPR@95.

    Images are kept at score <= v, where v is the lowest score that keeps 95 %: an OOD score that ties with v is missed,
    as it is by a threshold, which flags above its value only. Raises UsageError for unusable scores.
    """
    ind, ood = checked_pair(ind, ood)
    return _taken_at_95(positive=-ind, negative=-ood)


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval (low, high) of a share, from hits out of n independent trials (Clopper and Pearson 1934).

    It covers the share with a probability of at least `confidence`. Raises UsageError unless 0 <= hits <= n, n >= 1 and
    0 < confidence < 1.
    """
    require_share("confidence", confidence)
    if n < 1 or not 0 <= hits <= n:
        raise UsageError(f"{hits} hits in {n} trials; expected at least one trial and between 0 and n hits.")
    interval = binomtest(hits, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def false_alarms(ind_scores: FloatArray, threshold: float | FloatArray) -> FalseAlarms:
    """Share of in-distribution scores [n] above the threshold (one for all, or [n]), with its 95 % interval.

    The interval is valid for images that took no part in the calibration. Raises UsageError for unusable scores.
    """
    ind = checked_scores("In-distribution scores", ind_scores)
    flagged = int(np.count_nonzero(ind > threshold))
    return FalseAlarms(
        rate=flagged / ind.size, interval=clopper_pearson(flagged, ind.size), flagged=flagged, count=ind.size
    )


def set_metrics(ind: FloatArray, ood: FloatArray, threshold: float | FloatArray) -> SetMetrics:
    """All metrics of one OOD set [k] against the in-distribution test set [n].

    An OOD image is detected when its score is above the threshold: one for all, or [k], each image's own. Raises
    UsageError for unusable scores.
    """
    ind, ood = checked_pair(ind, ood)
    detected = int(np.count_nonzero(ood > threshold))
    return SetMetrics(
        auroc=auroc(ind, ood),
        aupr_in=aupr_in(ind, ood),
        aupr_out=aupr_out(ind, ood),
        fpr_at_95_detection=fpr_at_95_detection(ind, ood),
        missed_at_95_kept=missed_at_95_kept(ind, ood),
        detection_rate=detected / ood.size,
        detection_interval=clopper_pearson(detected, ood.size),
        count=ood.size,
    )


def _aupr(positive: FloatArray, negative: FloatArray) -> float:
    scores = np.concatenate([positive, negative])
    descending = np.argsort(-scores, kind="stable")
    # tied scores are taken together: the curve has a point only where the score changes, and at the end
    taken = np.append(np.flatnonzero(np.diff(scores[descending])), scores.size - 1) + 1
    hits = np.cumsum(descending < positive.size)[taken - 1]
    precision = np.concatenate([[1.0], hits / taken])
    recall = np.concatenate([[0.0], hits / positive.size])
    return float(trapezoid(precision, recall))


def _taken_at_95(positive: FloatArray, negative: FloatArray) -> float:
    """Share of the negatives at or above the highest score that has 95 % of the positives at or above it."""
    rank = rank_at_95(positive.size)
    return float(np.mean(negative >= np.partition(positive, rank)[rank]))
