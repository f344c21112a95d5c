"""Tests what n scores are said to promise about false alarms, with numpy alone: no scipy is loaded to serve.

Fits nothing: `calibration.promises` does that, with scipy, and says there what each method promises. For "pac" the
false-alarm rate of the threshold with m of n scores above it is Beta(m + 1, n - m), and P(Beta(m + 1, n - m) > alpha)
is P(Binomial(n, alpha) <= m) (order statistics: David and Nagaraja 2003, sec. 2.5), a sum of m + 1 terms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

Method = Literal["pac", "conformal", "quantile"]

CLOSE = 1e-6  # relative; a sum of the logarithms of ten million scores is exact to a hundredth of this
HALVINGS = 52  # of the rates from 0 to 1; once more, and the largest would be 1


def upper_end(hits: int, n: int, risk: float) -> float:
    """The rate at which at most `hits` of n are hit with a probability of `risk`: 0.025 for the end of a 95 % interval.

    That of Clopper and Pearson (1934); 1 where all are hit.
    """
    return _solve(_log_choose(n, hits), n, risk) if hits < n else 1.0


def as_written(share: float) -> Fraction:
    """The decimal number that the user wrote, exactly: 0.07 as 7/100.

    In binary floats ceil((n + 1)(1 - alpha)) is wrong where the product is a whole number: 1000 * (1 - 0.059) is
    941.0000000000001, which moves the rank from 941 to 942; and 180 * 0.35 is 62.99999999999999. Such n are common.
    """
    return Fraction(repr(float(share)))


@dataclass(frozen=True)
class Demand:
    """What was asked of a threshold.

    Attributes:
        method: How it was fitted.
        alpha: Allowed false-alarm rate, in (0, 1).
        delta: 1 minus the confidence of this one promise, in (0, 1), for "pac"; None for the others.
    """

    method: Method
    alpha: float
    delta: float | None

    def bound(self, scores: Sequence[float], threshold: float, allowed_above: int) -> float:
        """The bound of the false-alarm rate that a threshold has.

        Args:
            scores: That it was fitted on, ascending, [n].
            threshold: The threshold.
            allowed_above: How many of the scores may lie above it.

        Raises:
            ValueError: The threshold, or that number, is not what follows from the scores and the demand.
        """
        n, m = len(scores), allowed_above
        if not (0 <= m < n and self._allows(n, m)):
            raise ValueError(
                f"allowed_above: {m} of {n} does not follow from {self.method}, alpha {self.alpha}, delta {self.delta}"
            )
        if threshold != scores[n - 1 - m]:
            raise ValueError(f"threshold: {threshold} is not the one that the scores give, {scores[n - 1 - m]}")
        if self.delta is not None:
            return _solve(_log_choose(n, m), n, self.delta)
        return (m + 1) / (n + 1) if self.method == "conformal" else m / n

    def needs(self, n: int) -> bool:
        """Whether n is the smallest number of scores that can keep this promise; "quantile" promises nothing."""
        if self.delta is None:
            return n == math.ceil(1 / as_written(self.alpha)) - 1
        return (1 - self.alpha) ** n <= self.delta * (1 + CLOSE) and (
            n == 1 or (1 - self.alpha) ** (n - 1) > self.delta * (1 - CLOSE)
        )

    def _allows(self, n: int, m: int) -> bool:
        """Whether m is the largest number of n scores that may lie above the threshold."""
        if self.delta is None:
            count = (n + 1) * as_written(self.alpha) - 1 if self.method == "conformal" else n * as_written(self.alpha)
            return m == math.floor(count)
        choose = _log_choose(n, m + 1)
        return _risk(choose[:-1], n, self.alpha) <= self.delta * (1 + CLOSE) and (
            _risk(choose, n, self.alpha) > self.delta * (1 - CLOSE)
        )


def _log_choose(n: int, m: int) -> npt.NDArray[np.float64]:
    """Logarithms of the numbers of ways to choose 0 to m of n, [m + 1]."""
    k = np.arange(1, m + 1)
    return np.concatenate([[0.0], np.cumsum(np.log((n - k + 1) / k))])


def _risk(log_choose: npt.NDArray[np.float64], n: int, rate: float) -> float:
    """P(Binomial(n, rate) <= m), from the logarithms of the coefficients 0 to m."""
    k = np.arange(len(log_choose))
    terms = log_choose + k * math.log(rate) + (n - k) * math.log1p(-rate)
    largest = float(terms.max())
    return math.exp(largest) * float(np.exp(terms - largest).sum())


def _solve(log_choose: npt.NDArray[np.float64], n: int, delta: float) -> float:
    """The rate at which the risk, which falls as the rate rises, is delta."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _risk(log_choose, n, middle) > delta else (low, middle)
    return high
