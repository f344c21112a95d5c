"""Computes seeded bootstrap intervals of the mean FPR@95 over OOD sets and of its difference between two scores.

FPR@95 is `metrics.fpr_at_95_detection`: the share of InD images at or above the score that catches 95 % of the OOD
images. That score is estimated too, so a binomial interval is too short. A stratified bootstrap (Efron 1979; Efron and
Tibshirani 1993, ch. 8) draws the InD images, and the images of each set, anew and with replacement. All sets of one
draw share its InD images, and both scores of a comparison share all images, as they do in the data, so that what the
estimates have in common cancels. Intervals are percentile intervals.

A bootstrap draws only what the sample contains: where no InD image is flagged, none is in any draw. Where the
draws do not differ the interval is `distribution_free`, which assumes nothing and is wider. In a mean over sets, a set
that flags none adds nothing to the length unless all others flag none too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from diffood.calibration.checked import FloatArray, IntArray, require_share
from diffood.calibration.metrics.intervals import (
    CONFIDENCE,
    Difference,
    Interval,
    ScoredSets,
    checked_same,
    checked_sets,
)
from diffood.calibration.metrics.rates import clopper_pearson, fpr_at_95_detection, rank_at_95
from diffood.errors import UsageError

DRAWS = 2000
"""Efron and Tibshirani 1993, sec. 13.3, ask for 1,000 or more for percentile limits."""

_MISSED = 0.05
"""The share of OOD that FPR@95 misses."""

_NUMBERS_AT_ONCE = 4_000_000
"""Resampled image numbers in memory at a time: 32 MB."""


@dataclass(frozen=True)
class FprComparison:
    """Mean FPR@95 of a first score against a second.

    Attributes:
        difference: First minus second.
        ratio: First / second; None when the second's mean is 0. Its high end is infinite where the second's mean is 0
            in more than the upper tail of the draws.
    """

    difference: Difference
    ratio: Interval | None


def mean_fpr_interval(
    scored: ScoredSets, confidence: float = CONFIDENCE, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Mean FPR@95 over one or more sets, each with the same weight, with its percentile interval.

    About draws * (n + sum m_k) numbers are drawn; equal arguments give equal intervals. Raises UsageError for unusable
    scores, fewer than two images on a side, confidence outside (0, 1) and fewer than one draw.
    """
    _require(confidence, draws)
    scored = checked_sets(scored)
    value = _mean_fpr(scored)
    drawn = np.concatenate([means[0] for means in _draws((scored,), draws, seed)])
    if np.ptp(drawn) == 0:
        low, high = distribution_free(scored, confidence)
        return Interval(value, min(low, value), max(high, value))
    low, high = _percentiles(drawn, confidence)
    return Interval(value, min(low, value), max(high, value))


def compare_fpr(
    first: ScoredSets, second: ScoredSets, confidence: float = CONFIDENCE, draws: int = DRAWS, seed: int = 0
) -> FprComparison:
    """Mean FPR@95 of the first score against that of the second on the same images.

    The p-value is twice the smaller share of draws with a difference on one side of 0, 0 included, counting the data as
    one draw more, so that it is never 0 (Davison and Hinkley 1997, sec. 4.2). It is 1 where the draws do not differ and
    the interval contains 0. Where both means of a draw are 0 their ratio counts as 1. Raises UsageError as
    `mean_fpr_interval` and for unequal sets.
    """
    _require(confidence, draws)
    first, second = checked_same(first, second)
    one, other = _mean_fpr(first), _mean_fpr(second)
    drawn_one, drawn_other = np.concatenate(list(_draws((first, second), draws, seed)), axis=1)
    change = drawn_one - drawn_other
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where((drawn_one == 0) & (drawn_other == 0), 1.0, drawn_one / drawn_other)
    at_most, at_least = np.count_nonzero(change <= 0), np.count_nonzero(change >= 0)
    p_value = min(1.0, 2 * (min(at_most, at_least) + 1) / (draws + 1))
    if np.ptp(change) == 0:
        # each interval at half the risk, so that both hold at once (Bonferroni)
        each = (1 + confidence) / 2
        (low_one, high_one), (low_other, high_other) = distribution_free(first, each), distribution_free(second, each)
        low, high = low_one - high_other, high_one - low_other
        low_ratio, high_ratio = low_one / high_other, high_one / low_other if low_other > 0 else np.inf
        p_value = 1.0 if low <= 0 <= high else p_value
    else:
        low, high = _percentiles(change, confidence)
        low_ratio, high_ratio = _percentiles(ratios, confidence)
    value = one - other
    difference = Difference(value, min(low, value), max(high, value), float(p_value))
    if other == 0:
        return FprComparison(difference, None)
    ratio = one / other
    return FprComparison(difference, Interval(ratio, min(float(low_ratio), ratio), max(float(high_ratio), ratio)))


def distribution_free(scored: ScoredSets, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Ends (low, high) of an interval of the mean FPR@95 that holds for any distribution of independent images.

    Each of the 2K ends takes its share of the risk, half of it for the true score v that catches 95 % of a set and half
    for the share of InD at or above a score. The number of images of a set below v is binomial, which bounds v by two
    of the set's sorted scores (the interval for a quantile: Thompson 1936); given these, the InD images at or above are
    binomial too (Clopper and Pearson 1934). Takes checked scores.
    """
    part = (1 - confidence) / (4 * len(scored.sets))
    ends = np.empty((len(scored.sets), 2))
    for row, ood in zip(ends, scored.sets.values(), strict=True):
        ordered = np.concatenate([[-np.inf], np.sort(ood), [np.inf]])
        # The r-th smallest is above v only when fewer than r lie at or below v: P(count <= r - 1), and so upward.
        below = int(binom.ppf(part, ood.size, _MISSED))
        above = int(binom.isf(part, ood.size, _MISSED)) + 1
        for column, (end, rank) in enumerate(((0, above), (1, below))):
            flagged = int(np.count_nonzero(scored.ind >= ordered[rank]))
            row[column] = clopper_pearson(flagged, scored.ind.size, 1 - 2 * part)[end]
    low, high = ends.mean(axis=0)
    return float(low), float(high)


def _require(confidence: float, draws: int) -> None:
    require_share("confidence", confidence)
    if draws < 1:
        raise UsageError(f"draws is {draws}; a bootstrap needs at least one, {DRAWS} is usual.")


def _mean_fpr(scored: ScoredSets) -> float:
    return float(np.mean([fpr_at_95_detection(scored.ind, ood) for ood in scored.sets.values()]))


def _draws(scores: tuple[ScoredSets, ...], draws: int, seed: int) -> Iterator[FloatArray]:
    """Mean FPR@95 [scores, some draws] of all scores on the same redrawn images, until there were enough draws."""
    generator = np.random.default_rng(seed)
    names = list(scores[0].sets)
    n = scores[0].ind.size
    orders = [np.argsort(scored.ind, kind="stable") for scored in scores]
    ranks = [{name: np.argsort(np.argsort(scored.sets[name], kind="stable")) for name in names} for scored in scores]
    # at[s][name][r]: how many InD images lie below the OOD score of rank r, that is, where a cumulative count is read.
    at = [
        {name: np.searchsorted(scored.ind[order], np.sort(scored.sets[name]), side="left") for name in names}
        for scored, order in zip(scores, orders, strict=True)
    ]
    largest = max(n, *(scores[0].sets[name].size for name in names))
    for start in range(0, draws, max(1, _NUMBERS_AT_ONCE // largest)):
        count = min(draws - start, max(1, _NUMBERS_AT_ONCE // largest))
        times = _times_drawn(generator.integers(n, size=(count, n)), n)
        below = [np.pad(np.cumsum(times[:, order], axis=1), ((0, 0), (1, 0))) for order in orders]
        means = np.zeros((len(scores), count))
        for name in names:
            size = scores[0].sets[name].size
            chosen, rank = generator.integers(size, size=(count, size)), rank_at_95(size)
            for s in range(len(scores)):
                caught = np.partition(ranks[s][name][chosen], rank, axis=1)[:, rank]
                means[s] += n - below[s][np.arange(count), at[s][name][caught]]
        yield means / (n * len(names))


def _times_drawn(chosen: IntArray, n: int) -> IntArray:
    """How often each of n images was drawn, int64 [draws, n], from image numbers [draws, any]."""
    offset = chosen + n * np.arange(len(chosen))[:, None]
    return np.bincount(offset.ravel(), minlength=n * len(chosen)).reshape(len(chosen), n)


def _percentiles(drawn: FloatArray, confidence: float) -> tuple[float, float]:
    """Sorted draws at both tails, without interpolation, so that an infinite ratio stays one."""
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return float(low), float(high)
