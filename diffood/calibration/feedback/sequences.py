"""Bounds of a rate from labelled draws that hold at all times at once, however often one looks.

Each draw is a hit or not. Where hits are drawn with another probability than the rest, a drawn row is a hit with the
odds of the rate times the ratio of the two probabilities, which is known: no weights are needed, and none grow large.

Against the claim "the rate is never above r" stakes are laid on higher rates b: each multiplies its wealth by
P(outcome | b) / P(outcome | r), whose mean is at most 1 while the claim is true. (For outcomes of 0 and 1 every bet of
Waudby-Smith and Ramdas 2024, sec. 4, has this form.) A mean over many b (Robbins 1970), each begun at every draw t with
the share 1 / (t (t + 1)) so that what comes late is seen (e-detectors: Shin, Ramdas and Rinaldo 2024), is such a wealth
again, and P(it ever reaches 1 / risk) <= risk (Ville 1939). Reads no files.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from diffood.calibration.checked import FloatArray

STAKES = expit(np.linspace(logit(1e-4), logit(1 - 1e-4), 72))
"""Rates that are bet on: neighbours differ by a quarter in their odds, which costs a growing wealth a hundredth."""
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
    with np.errstate(divide="ignore"):
        claimed, staked = (_log_odds_shifted(values, draws.ratio) for values in (rates, STAKES))
        gains = {
            True: np.minimum(staked[0] - claimed[0][:, None], 700.0),  # a hit where none may be: all that a float holds
            False: staked[1] - claimed[1][:, None],
        }
        above = rates[:, None] < STAKES
        weights = np.log(above / np.maximum(above.sum(1), 1)[:, None])
    sequences = draws.hits.shape[:-1]
    wealth = np.full((*sequences, *weights.shape), -np.inf)
    highest = np.zeros((*sequences, len(rates)))
    path = np.empty((draws.hits.shape[-1], *highest.shape))
    for index in range(draws.hits.shape[-1]):
        hit = draws.hits[..., index, None, None]
        begun = weights - np.log((index + 1) * (index + 2))
        wealth = np.logaddexp(wealth, begun) + np.where(hit, gains[True], gains[False])
        largest = np.maximum(wealth.max(-1, keepdims=True), -1e3)
        total = np.log(np.exp(wealth - largest).sum(-1)) + largest[..., 0]
        highest = np.maximum(highest, np.logaddexp(total, -np.log(index + 2)))  # the rest waits for later draws
        path[index] = highest
    return path


def _log_odds_shifted(rates: FloatArray, ratio: float) -> tuple[FloatArray, FloatArray]:
    """Logarithms of the probabilities that a draw is a hit, and that it is not."""
    hit = rates * ratio / (rates * ratio + 1 - rates)
    return np.log(hit), np.log1p(-hit)


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
