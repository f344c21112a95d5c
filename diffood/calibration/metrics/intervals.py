"""Computes intervals of the mean AUROC over OOD sets and of its difference between two scores (DeLong).

DeLong, DeLong and Clarke-Pearson 1988, in the n log n time of Sun and Xu 2014. For the in-distribution (InD) images i
and the images j of OOD set k, let psi_k(i, j) be 1 when image j scores above image i, 1/2 when they tie, else 0. The
placement of an image is the mean of psi over the other side: V_k(i) over the images of set k, W_k(j) over the InD
images. The AUROC of set k is the mean of either.

Several sets share the InD images, so their AUROCs are correlated. The mean A of K AUROCs is a statistic of 1 + K
independent samples; its Hajek projection is the sum of mean_i(mean_k V_k(i)) and of mean_j W_k(j) / K for each k, less
constants. These are means of independent terms, hence with sample variances

    Var A = var_i(mean_k V_k(i)) / n + sum_k var_j(W_k(j)) / (K^2 m_k),

in which the covariances through the shared images are contained. K = 1 is DeLong's variance. For the difference of two
scores on the same images, replace each placement by the difference of its two values: the same sum is DeLong's paired
variance, covariances between the scores included.

Near 1 a normal law does not hold: a few misordered images say little about how rare misordering is. Take the b =
min(n, m_1, ..., m_K) disjoint blocks of one InD image and one image of each set. They are independent, and 1 - A is at
most the probability q that a block contains a misordered pair. At most h blocks do, where h is the smaller of the
numbers of InD and of OOD images that take part in any misordered pair, so A >= 1 - q >= the Clopper-Pearson limit for
b - h of b. This lower limit assumes nothing. Where h is below `FEW` the interval is widened to the Clopper-Pearson
interval for b - h of b. At AUROC = 1 it is [tail^(1/b), 1], tail being 2.5 % for a 95 % interval. Near 0 everything is
mirrored.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr, ndtri

from diffood.calibration.checked import FloatArray, checked_scores, require_share
from diffood.calibration.metrics.rates import clopper_pearson
from diffood.errors import UsageError

CONFIDENCE = 0.95

FEW = 5
"""Fewer misordered (or, for a difference, differently placed) images than this on a side: no normal law is trusted.

The usual rule for a normal approximation of a count: at least five of the rarer kind (Cochran 1954).
"""

_ROUNDING = 1e-12
"""A standard error below this counts as 0: placements are shares, exact to 1e-16."""


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval; low <= value <= high."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """First minus second, with the ends of its interval and the two-sided p-value of "they do not differ"."""

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class ScoredSets:
    """One score on all images of an evaluation.

    To compare two scores, both have the same sets, and position i of an array is the same image in both.

    Attributes:
        ind: In-distribution scores, float64 [n].
        sets: Scores of each OOD set by its name, float64 [m_k].
    """

    ind: FloatArray
    sets: Mapping[str, FloatArray]


@dataclass(frozen=True)
class _Placements:
    """Mean placement over the sets of each InD image [n], and of each image of each set [m_k]; all in [0, 1]."""

    ind: FloatArray
    sets: tuple[FloatArray, ...]

    @property
    def blocks(self) -> int:
        return min(self.ind.size, *(ood.size for ood in self.sets))

    @property
    def variance(self) -> float:
        of_sets = sum(float(np.var(ood, ddof=1)) / ood.size for ood in self.sets)
        return float(np.var(self.ind, ddof=1)) / self.ind.size + of_sets / len(self.sets) ** 2

    def differing(self, from_value: float) -> int:
        """The smaller of the numbers of InD and of OOD images whose placement is not from_value."""
        of_sets = sum(int(np.count_nonzero(ood != from_value)) for ood in self.sets)
        return min(int(np.count_nonzero(self.ind != from_value)), of_sets)


def placements(ind: FloatArray, ood: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Placements in [0, 1] of the InD images [n] and of the OOD images [m]; the mean of either is the AUROC.

    An InD image's is the share of OOD scores above its own, an OOD image's the share of InD scores below its own, ties
    counted half. By sorting each side once, in O((n + m) log(n + m)): the midrank of an image among all less that among
    its own side, which Sun and Xu 2014 take (eq. 8 and 9), is this count. Takes checked scores.
    """
    return 1 - _below(ood, ind), _below(ind, ood)


def mean_auroc_interval(scored: ScoredSets, confidence: float = CONFIDENCE) -> Interval:
    """Mean AUROC over one or more sets, each with the same weight, and DeLong's interval on the logit scale.

    The shared InD images are accounted for. The interval is about new images of the same sets, not about other sets.
    The logit keeps it in [0, 1] and lets it be longer toward 1/2 (Qin and Hotilovac 2008 compare such intervals). Near
    0 and 1, and for a constant score, the interval is widened as the head of this file explains. Raises UsageError for
    unusable scores, fewer than two images on a side, and confidence outside (0, 1).
    """
    require_share("confidence", confidence)
    placed = _placed(checked_sets(scored))
    value, blocks, error = float(placed.ind.mean()), placed.blocks, math.sqrt(placed.variance)
    low, high = value, value
    if error > _ROUNDING:
        # a standard error above 0 implies 0 < value < 1: at either end all placements are equal
        centre, reach = math.log(value / (1 - value)), _quantile(confidence) * error / (value * (1 - value))
        low, high = float(expit(centre - reach)), float(expit(centre + reach))
    elif 0 < value < 1:
        # all pairs are equal, as with a constant score: bounded by the share of blocks that may differ
        unseen = clopper_pearson(0, blocks, confidence)[1]
        low, high = max(0.0, value - unseen), min(1.0, value + unseen)
    for perfect in (1.0, 0.0):
        misordered = min(placed.differing(perfect), blocks)
        if misordered < FEW:
            exact = clopper_pearson(blocks - misordered if perfect else misordered, blocks, confidence)
            low, high = min(low, exact[0]), max(high, exact[1])
    return Interval(value, low, high)


def mean_auroc_difference(first: ScoredSets, second: ScoredSets, confidence: float = CONFIDENCE) -> Difference:
    """Mean AUROC of the first score minus that of the second on the same images: DeLong's paired difference.

    Where fewer than FEW images of a side are placed differently, nothing is concluded: the p-value is 1 and the
    interval is 0 -+ the Clopper-Pearson limit for the share of blocks in which the scores disagree. Raises UsageError
    for unusable scores, unequal sets, fewer than two images on a side, and confidence outside (0, 1).
    """
    require_share("confidence", confidence)
    first, second = checked_same(first, second)
    one, other = _placed(first), _placed(second)
    placed = _Placements(one.ind - other.ind, tuple(a - b for a, b in zip(one.sets, other.sets, strict=True)))
    value, blocks = float(placed.ind.mean()), placed.blocks
    differing = placed.differing(0.0)
    if differing < FEW:
        reach = max(abs(value), clopper_pearson(min(differing, blocks), blocks, confidence)[1])
        return Difference(value, -reach, reach, 1.0)
    error = math.sqrt(placed.variance)
    if error < _ROUNDING:
        # a constant difference in all blocks, for instance between two extreme scores: it moves by at most 2 in the
        # share of blocks where it differs, and it differed in none
        reach = 2 * clopper_pearson(0, blocks, confidence)[1]
        p_value = min(1.0, 2 * (1 - abs(value) / 2) ** blocks)
    else:
        reach = _quantile(confidence) * error
        p_value = float(2 * ndtr(-abs(value) / error))
    return Difference(value, max(-1.0, value - reach), min(1.0, value + reach), p_value)


def checked_sets(scored: ScoredSets) -> ScoredSets:
    """The same with every array checked. Raises UsageError for unusable scores, no set, or a side with one image."""
    if not scored.sets:
        raise UsageError("No out-of-distribution set given; a comparison needs at least one.")
    ind = checked_scores("In-distribution scores", scored.ind)
    sets = {name: checked_scores(f"Scores of the set {name}", ood) for name, ood in scored.sets.items()}
    for name, scores in {
        "In-distribution scores": ind,
        **{f"Scores of the set {key}": sets[key] for key in sets},
    }.items():
        if scores.size < 2:
            raise UsageError(f"{name} are of one image; an interval needs at least two.")
    return ScoredSets(ind, sets)


def checked_same(first: ScoredSets, second: ScoredSets) -> tuple[ScoredSets, ScoredSets]:
    """Both checked, with the sets in the order of the first. Raises UsageError when the images cannot be the same."""
    first, second = checked_sets(first), checked_sets(second)
    if first.sets.keys() != second.sets.keys():
        raise UsageError(
            f"The two scores are of different sets: {', '.join(first.sets)} against {', '.join(second.sets)}; score "
            "the same sets with both."
        )
    second = ScoredSets(second.ind, {name: second.sets[name] for name in first.sets})
    pairs = {"in-distribution": (first.ind, second.ind)} | {
        name: (first.sets[name], second.sets[name]) for name in first.sets
    }
    for name, (one, other) in pairs.items():
        if one.size != other.size:
            raise UsageError(
                f"The two scores of the {name} images are of {one.size} and {other.size} images; score the same "
                "images, in the same order, with both."
            )
    return first, second


def _placed(scored: ScoredSets) -> _Placements:
    both = [placements(scored.ind, ood) for ood in scored.sets.values()]
    return _Placements(np.mean([of_ind for of_ind, _ in both], axis=0), tuple(of_ood for _, of_ood in both))


def _below(others: FloatArray, scores: FloatArray) -> FloatArray:
    """Share of the others below each score, ties counted half. A share of 0 or 1 is exactly that."""
    others = np.sort(others)
    return (np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")) / (2 * others.size)


def _quantile(confidence: float) -> float:
    return float(ndtri((1 + confidence) / 2))
