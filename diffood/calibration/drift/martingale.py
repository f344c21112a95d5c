"""Tests whether served scores still have the distribution of the calibration scores: a conformal test martingale.

The calibration scores and, after them, the served scores in order are one sequence. While it is exchangeable, the
online smoothed conformal p-values of the served scores are independent and uniform on (0, 1) (Vovk, Gammerman, Shafer
2005), a bet on them is fair, and P(wealth ever reaches 1 / level) <= level (Ville 1939). The probability is over draws
of the calibration images and the served ones together; streams tested against one calibration share its luck.

An alarm says that the images, or what scores them, changed since the calibration, or that the two were never
exchangeable: another source, repeated images, rows sorted by their content. The absence of an alarm proves nothing.
Reads no files and draws no charts.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from diffood.calibration.checked import FloatArray

JUMP_RATES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Vovk et al. 2021, "Retrain or not retrain", without their rate 1, which cannot win on a lasting drift."""

_BLOCK = 256  # scores compared pairwise at a time: small enough for the cache, large enough to hide numpy's overhead
_HASH_BITS = 52  # a float64 represents an odd multiple of 2^-53 exactly


def tie_breaker(position: int, sha256: str) -> float:
    """A number in (0, 1) for the served row at this position, uniform over rows and the same on every run."""
    digest = hashlib.sha256(f"diffood monitor {position} {sha256}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") >> (64 - _HASH_BITS)
    return (drawn + 0.5) / float(2**_HASH_BITS)


def online_p_values(earlier: FloatArray, scores: FloatArray, ties: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Smoothed conformal p-values of scores in order, small where the score is high.

    p_i = (#{earlier > s_i} + tie_i (1 + #{earlier = s_i})) / (#earlier + 1): Vovk et al. 2005.

    Args:
        earlier: All scores before these, sorted, float64 [n].
        scores: float64 [N]; inf is allowed, NaN is not.
        ties: Uniform in (0, 1), float64 [N].

    Returns:
        The p-values, float64 [N], and all scores so far, sorted, for the next call.
    """
    p_values = np.empty(len(scores))
    for start in range(0, len(scores), _BLOCK):
        block = scores[start : start + _BLOCK]
        before = np.tri(len(block), k=-1, dtype=np.bool_)  # [i, j]: j came before i
        left, right = (np.searchsorted(earlier, block, side) for side in ("left", "right"))
        above = len(earlier) - right + np.sum((block[None] > block[:, None]) & before, 1)
        equal = right - left + np.sum((block[None] == block[:, None]) & before, 1)
        count = len(earlier) + np.arange(len(block))
        p_values[start : start + _BLOCK] = (above + ties[start : start + _BLOCK] * (1 + equal)) / (count + 1)
        earlier = np.sort(np.concatenate([earlier, block]), kind="stable")  # two sorted runs: a merge
    return p_values, earlier


def bet_factors(p_values: FloatArray) -> FloatArray:
    """The factor by which each bet multiplies its stake, [..., 4] for p-values [...]; each integrates to 1 over (0, 1).

    No bet; 3/2 - p and 1/2 + p on scores that rise and fall, the three of Vovk et al. 2021; and p^(-1/2) / 2 (the power
    martingale of Vovk et al. 2003) on a few very high scores, the usual drift. The last reduces the median delay for
    20 % of scores 4 standard deviations higher from 229 rows to 28 (300 simulations, 1,000 calibration scores, level
    0.01), and takes about a seventh more rows on small shifts of all scores.
    """
    return np.stack([np.ones_like(p_values), 1.5 - p_values, 0.5 + p_values, 0.5 / np.sqrt(p_values)], -1)


@dataclass(frozen=True)
class Wealth:
    """Wealth of the players, one per jump rate.

    Attributes:
        logs: Natural logarithm of the wealth, float64 [..., R].
        shares: Of it on each bet, with the sum 1, float64 [..., R, 4].
    """

    logs: FloatArray
    shares: FloatArray


def initial_wealth(sequences: tuple[int, ...] = ()) -> Wealth:
    """Wealth 1 for every jump rate, equally on all bets. `sequences` is the shape of many sequences played at once."""
    bets = bet_factors(np.ones(1)).shape[-1]
    shape = (*sequences, len(JUMP_RATES))
    return Wealth(np.zeros(shape), np.full((*shape, bets), 1 / bets))


def play(wealth: Wealth, p_values: FloatArray) -> tuple[Wealth, FloatArray]:
    """Bet on p-values [..., N] one after another: the wealth after them and log10 of the martingale [..., N].

    The Composite Jumper martingale (Vovk et al. 2021): before each p-value each player spreads a share J of its wealth
    evenly over all bets; the martingale is the mean wealth of the players. In logarithms, so nothing overflows.
    """
    rates = np.array(JUMP_RATES)[:, None]
    factors = bet_factors(p_values)
    logs, shares = wealth.logs, wealth.shares
    path = np.empty((*p_values.shape, len(JUMP_RATES)))
    for index in range(p_values.shape[-1]):
        shares = ((1 - rates) * shares + rates / shares.shape[-1]) * factors[..., index, None, :]
        total = shares.sum(-1)
        logs = logs + np.log(total)
        shares = shares / total[..., None]
        path[..., index, :] = logs
    mean = np.logaddexp.reduce(path, axis=-1) - math.log(len(JUMP_RATES))
    return Wealth(logs, shares), mean / math.log(10)


def estimate_start(p_values: FloatArray) -> int:
    """Index at which a drift started that raised an alarm at the last of p_values [N], N >= 1.

    The most likely change point, over points and bets, from the uniform density before to the density of a bet after:
    where the cumulated logarithm of the winning bet was lowest (Page 1954; Hinkley 1970).
    """
    gains = np.log(bet_factors(p_values)[:, 1:])
    cumulated = np.concatenate([np.zeros((1, gains.shape[1])), np.cumsum(gains, 0)])
    winner = int(np.argmax(cumulated[-1] - cumulated[:-1].min(0)))
    return int(np.argmin(cumulated[:-1, winner]))


@dataclass(frozen=True)
class GroupDrift:
    """One class or source since the start of the drift.

    Attributes:
        name: Of the class or source.
        rows: Rows of the group.
        flagged_share: Share of them that is flagged.
        mean_p_value: Mean of their conformal p-values against the calibration.
        p_value: Of "the scores of the group are not higher than those of the calibration", one-sided, times the number
            of groups (Bonferroni), at most 1. It is for ranking: the rows were chosen after looking, so it is no
            guarantee. A class whose images always score high ranks high too.
    """

    name: str
    rows: int
    flagged_share: float
    mean_p_value: float
    p_value: float


def rank_groups(
    names: Sequence[str], scores: FloatArray, flagged: npt.NDArray[np.bool_], calibration: FloatArray
) -> tuple[GroupDrift, ...]:
    """Compare the rows of each name with the calibration; the group that drifts most comes first.

    Against the calibration alone, since earlier drifted rows hide later ones from the online p-values. Mann and Whitney
    1947: U in the normal approximation, with the correction for continuity and none for ties, which is conservative.

    Args:
        names: Group of each row, [N].
        scores: float64 [N].
        flagged: bool [N].
        calibration: Calibration scores, sorted, float64 [n].
    """
    if not names:
        return ()
    known, group = np.unique(np.array(names, dtype=object), return_inverse=True)
    left, right = (np.searchsorted(calibration, scores, side) for side in ("left", "right"))
    n, rows = len(calibration), np.bincount(group)
    u = np.bincount(group, (left + right) / 2)
    z = (u - rows * n / 2 - 0.5) / np.sqrt(rows * n * (rows + n + 1) / 12)
    corrected = np.minimum(norm.sf(z) * len(known), 1)
    p_values = np.bincount(group, (1 + n - left) / (n + 1)) / rows
    shares = np.bincount(group, flagged) / rows
    groups = [
        GroupDrift(str(name), int(count), float(share), float(mean), float(corrected_p))
        for name, count, share, mean, corrected_p in zip(known, rows, shares, p_values, corrected, strict=True)
    ]
    return tuple(sorted(groups, key=lambda one: (one.p_value, one.mean_p_value, one.name)))
