"""Bounds the false-alarm rate of every threshold at once, with numpy alone: no scipy is loaded to serve.

Of n calibration scores let m lie above a threshold. Its false-alarm rate is then at most U_(m + 1), the (m + 1)-th
smallest of n independent uniform numbers: equal to it where the threshold is a score and scores are continuous, below
it otherwise. So numbers b_0 <= b_1 <= ... with P(U_(m + 1) <= b_m for every m) >= 1 - delta bound the rates of all
thresholds together, also of one that was chosen after looking at the scores, or at what it flags.

b_m is the 1 - level quantile of Beta(m + 1, n - m), the law of U_(m + 1), with one level for all m: the bound of
Berk and Jones (1979) in the form with equal local levels (Aldor-Noiman et al. 2013, "The power to see"; Moscovich,
Nadler and Spiegelman 2016). The level is the largest for which the probability above, computed exactly, is 1 - delta.
It is the bound of "pac" for one threshold with a smaller delta: about delta / 30 at n = 1,000.

The probability: {U_(k) <= b} says that at least k of the n numbers are below b. The counts below increasing b are a
Poisson process of rate n, given that it ends at n (Khmaladze and Shinjikashvili 2001; Moscovich and Nadler 2017). So
the law of the count is carried from one b to the next by a convolution, and cut where it is below k.

Not every m has a b of its own: from 64 on they lie up to 1 % apart, and those between take the next larger one's. That
is part of what the probability is computed for, so the bounds stay exact, and a million scores take seconds.

Massart's form of the DKW inequality, m / n + sqrt(log(1 / delta) / 2n), is the other choice. It is narrower only above
a rate of about 18 %, and four times as wide at 1 %.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.scoring import Float

_NEXT_ROOT, _NEXT_SHARE = 4, 100  # places lie max(sqrt(m) / 4, m / 100) apart: a quarter of the count's deviation
_REACH = 10  # standard deviations of a count beyond which it is dropped, which can only make a bound larger
_TINY = 1e-300
_FRACTION_ROUNDS = 100_000  # of the continued fraction, which needs a few times sqrt(n)
_EXACT = 1e-13  # relative change of the fraction
_SETTLED = 1e-10  # relative change of a quantile
_NEWTON_ROUNDS = 60
_SECANT_ROUNDS = 12
_CLOSE = 1e-8  # relative, of the risk that the level gives


@dataclass(frozen=True)
class Band:
    """Upper bounds of the false-alarm rates of all thresholds, which hold together with probability 1 - delta.

    Attributes:
        n: Number of calibration scores.
        delta: The risk that any of the bounds fails.
        level: The risk that one of them alone fails.
        above: Numbers of scores above a threshold that have a bound of their own, ascending, int64 [G].
        bounds: Theirs, ascending, float64 [G].
    """

    n: int
    delta: float
    level: float
    above: npt.NDArray[np.int64]
    bounds: Float

    def bound(self, above: int) -> float:
        """Of the false-alarm rate of a threshold that so many of the n scores lie above; 1 where all do."""
        return float(self.bounds[np.searchsorted(self.above, above)]) if above < self.n else 1.0

    def allowed(self, rate: float) -> int | None:
        """The most scores that may lie above a threshold whose rate is at most `rate`; None where none may."""
        place = int(np.searchsorted(self.bounds, rate, "right"))
        return int(self.above[place - 1]) if place else None


@lru_cache(maxsize=64)
def simultaneous_band(n: int, delta: float) -> Band:
    """The bounds for n scores at a risk of delta in (0, 1)."""
    above = _places(n)
    first = (math.log(delta), _log_risk(n, above, delta))
    second = (math.log(delta / 30), _log_risk(n, above, delta / 30))
    goal = math.log(delta)
    for _ in range(_SECANT_ROUNDS):  # the logarithm of the risk is nearly a line in that of the level
        if abs(second[1] - goal) < _CLOSE or second[0] == first[0] or second[1] == first[1]:
            break
        slope = (second[1] - first[1]) / (second[0] - first[0])
        level = min(second[0] + (goal - second[1]) / slope, goal)
        first, second = second, (level, _log_risk(n, above, math.exp(level)))
    level = math.exp(second[0])
    return Band(n, delta, level, above, beta_quantiles(above + 1, n - above, level))


def _places(n: int) -> npt.NDArray[np.int64]:
    places, last = [0], 0
    while last < n - 1:
        last = min(n - 1, last + max(1, int(max(math.sqrt(last) / _NEXT_ROOT, last / _NEXT_SHARE))))
        places.append(last)
    return np.array(places, np.int64)


def _log_risk(n: int, above: npt.NDArray[np.int64], level: float) -> float:
    return math.log(max(_TINY, 1 - all_below(n, above + 1, beta_quantiles(above + 1, n - above, level))))


def all_below(n: int, ranks: npt.NDArray[np.int64], bounds: Float) -> float:
    """P(the ranks[g]-th smallest of n uniform numbers is at most bounds[g], for every g); both ascend, ranks from 1."""
    counts, lowest, at = np.ones(1), 0, 0.0  # counts[i]: P(the count is lowest + i, no bound broken so far)
    for rank, bound in zip(ranks.tolist(), bounds.tolist(), strict=True):
        step = n * (bound - at)
        most = min(n, math.ceil(n * bound + _REACH * math.sqrt(n * bound) + 4 * _REACH))
        counts = _convolve(counts, _poisson(step))[: most - lowest + 1][max(0, rank - lowest) :]
        lowest, at = max(lowest, rank), bound
    left = np.arange(n - lowest, n - lowest - len(counts), -1)
    total = _poisson(n * (1 - at), int(left.max()))[left]
    return float((counts * total).sum() / math.exp(_log_poisson(n, float(n))))


def _convolve(one: Float, other: Float) -> Float:
    if min(len(one), len(other)) < 100:
        return np.asarray(np.convolve(one, other))
    size = len(one) + len(other) - 1
    length = 1 << (size - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(one, length) * np.fft.rfft(other, length), length)
    return np.asarray(np.maximum(product[:size], 0.0))


def _poisson(mean: float, most: int | None = None) -> Float:
    """Probabilities of 0, 1, ..., as far as they matter or to `most`."""
    if most is None:
        most = math.ceil(mean + _REACH * math.sqrt(mean) + 4 * _REACH)
    if mean <= 0:
        return np.asarray(np.eye(1, most + 1)[0])
    k = np.arange(1, most + 1)
    logs = np.concatenate([[0.0], np.cumsum(math.log(mean) - np.log(k))]) - mean
    return np.asarray(np.exp(logs))


def _log_poisson(k: int, mean: float) -> float:
    return k * math.log(mean) - mean - math.lgamma(k + 1)


def beta_quantiles(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], risk: float) -> Float:
    """The numbers x [G] that Beta(a, b) exceeds with probability `risk`, for whole a, b >= 1 of the same sum.

    Newton's method on the logarithm of the risk, kept between the ends that are known to hold it.
    """
    n = int(a[0] + b[0]) - 1
    goal, whole = math.log(risk), [math.lgamma(k) for k in range(1, n + 2)]
    factorials = np.array(whole)  # of k - 1 at k - 1
    scale = factorials[n] - factorials[a - 1] - factorials[b - 1]  # log 1/B(a, b)
    low, high = np.zeros(len(a)), np.ones(len(a))
    x = np.minimum((a + np.sqrt(-2 * goal * a) - 2 * goal / 3) / (n - goal), 1 - 0.5 / n)
    for _ in range(_NEWTON_ROUNDS):
        tail = _log_upper_tail(a, b, x, scale)
        low, high = np.where(tail > goal, x, low), np.where(tail > goal, high, x)
        density = scale + (a - 1) * np.log(x) + (b - 1) * np.log1p(-x)
        moved = x + (tail - goal) * np.exp(np.minimum(tail - density, 0.0))
        close = np.abs(moved - x) <= _SETTLED * x
        moved = np.where(close | ((moved > low) & (moved < high)), moved, (low + high) / 2)
        if close.all():
            break
        x = moved
    return np.asarray(np.maximum.accumulate(moved))


def _log_upper_tail(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], x: Float, scale: Float) -> Float:
    """Logarithm of P(Beta(a, b) > x): the continued fraction of the incomplete beta function (Lentz's method).

    P(Beta(a, b) > x) = P(Beta(b, a) < 1 - x), whose fraction converges fast for 1 - x below (b + 1) / (a + b + 2); the
    other one is taken beyond.
    """
    upper = 1 - x < (b + 1) / (a + b + 2)
    p, q, y = np.where(upper, b, a), np.where(upper, a, b), np.where(upper, 1 - x, x)
    front = scale + a * np.log(x) + b * np.log1p(-x) - np.log(p)
    value = front + np.log(_fraction(p, q, y))
    return np.asarray(np.where(upper, value, np.log1p(-np.minimum(np.exp(value), 1 - 1e-16))))


def _fraction(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], x: Float) -> Float:
    """See Press et al., Numerical Recipes, 3rd ed., sec. 6.4 (betacf)."""
    c = np.ones(len(x))
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    h = d.copy()
    for m in range(1, _FRACTION_ROUNDS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _away_from_zero(1 + even * d)
        c = _away_from_zero(1 + even / c)
        h *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away_from_zero(1 + odd * d)
        c = _away_from_zero(1 + odd / c)
        step = d * c
        h *= step
        if (np.abs(step - 1) <= _EXACT).all():
            break
    return np.asarray(h)


def _away_from_zero(values: Float) -> Float:
    return np.asarray(np.where(np.abs(values) < _TINY, _TINY, values))
