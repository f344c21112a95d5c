"""Bounds of a rate from labelled draws that hold at all times at once, however often one looks.

Each draw is a hit or not. Where hits are drawn with another probability than the rest, a drawn row is a hit with the
odds of the rate times the ratio of the two probabilities, which is known: no weights are needed, and none grow large.

Against the claim "the rate is never above r" stakes are laid on higher rates b: each multiplies its wealth by
P(outcome | b) / P(outcome | r), whose mean is at most 1 while the claim is true. (For outcomes of 0 and 1 every bet of
Waudby-Smith and Ramdas 2024, sec. 4, has this form.) A mean over many b (Robbins 1970), with bets that begin at every
draw so that what comes late is seen (e-detectors: Shin, Ramdas and Rinaldo 2024), is such a wealth again, and
P(it ever reaches 1 / risk) <= risk (Ville 1939). The share for bets that begin at draw t is about 1 / (t log(t)^2): a
late start costs the logarithm of little more than its time. Reads no files.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from diffood.calibration.checked import FloatArray

STAKES = expit(np.linspace(logit(1e-4), logit(1 - 1e-4), 28))
"""Rates that are bet on; the odds of neighbours differ twofold, which costs a growing wealth a few hundredths."""
MOST = 1e150  # of the wealth on one rate from one start; 1 / risk is far below
RATES = np.concatenate([[0.0], expit(np.linspace(logit(5e-4), logit(1 - 5e-4), 240))])
"""Rates that bounds are looked for among; neighbours differ by 6 %."""


@dataclass(frozen=True)
class Draws:
    """Labelled draws, in the order in which they were labelled.

    Attributes:
        hits: bool [..., N].
        ratio: Probability with which a hit is drawn, divided by that of another row.
    """

    hits: npt.NDArray[np.bool_]
    ratio: float = 1.0

    @property
    def others(self) -> "Draws":
        """The same draws, with the rest as hits."""
        return Draws(~self.hits, 1 / self.ratio)


def log_wealth(draws: Draws, rates: FloatArray) -> FloatArray:
    """Logarithm of the highest wealth so far against "the rate is never above r", for rates r [R] in [0, 1).

    Returns:
        After each draw, float64 [N, ..., R].
    """
    claimed, staked = rates[:, None], STAKES[None]
    hit, miss = _hit_share(claimed, draws.ratio), 1 - _hit_share(claimed, draws.ratio)
    with np.errstate(divide="ignore"):
        on_hit = np.minimum(_hit_share(staked, draws.ratio) / hit, MOST)
    on_miss = (1 - _hit_share(staked, draws.ratio)) / miss
    above = staked > claimed
    shares = above / np.maximum(above.sum(1, keepdims=True), 1)
    wealth = np.zeros((*draws.hits.shape[:-1], *shares.shape))
    highest = np.ones(wealth.shape[:-1])
    path = np.empty((draws.hits.shape[-1], *highest.shape))
    for index in range(draws.hits.shape[-1]):
        wealth += shares * (_unspent(index) - _unspent(index + 1))
        wealth *= np.where(draws.hits[..., index, None, None], on_hit, on_miss)
        np.minimum(wealth, MOST, out=wealth)  # what is won above is given away: no float overflows
        np.maximum(highest, wealth.sum(-1) + _unspent(index + 1), out=highest)
        path[index] = highest
    return np.log(path)


def _unspent(count: int) -> float:
    """What is kept for bets that begin after so many draws: 1 before the first, and falling slowly towards 0."""
    return float(1 / np.log(count + np.e))


def _hit_share(rates: FloatArray, ratio: float) -> FloatArray:
    """Probability that a draw is a hit."""
    return np.asarray(rates * ratio / (rates * ratio + 1 - rates))


def bound_below(draws: Draws, risk: float) -> float:
    """A rate that is exceeded with probability 1 - risk, for all times at once: 0 without draws."""
    if not draws.hits.shape[-1]:
        return 0.0
    refuted = log_wealth(draws, RATES)[-1] >= -np.log(risk)
    count = len(RATES) if refuted.all() else int(refuted.argmin())
    return float(RATES[max(count - 1, 0)])


def bound_above(draws: Draws, risk: float) -> float:
    """The same from above: 1 without draws."""
    return 1 - bound_below(draws.others, risk)


def first_refuted(draws: Draws, rate: float, risk: float) -> int | None:
    """Number of the draw, from 1, that refutes "the rate is never above `rate`"; None if none does."""
    if not draws.hits.shape[-1]:
        return None
    crossed = np.flatnonzero(log_wealth(draws, np.array([rate]))[:, 0] >= -np.log(risk))
    return int(crossed[0]) + 1 if crossed.size else None
