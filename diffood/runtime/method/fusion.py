"""Witnesses made comparable and combined into one score. Fits nothing, opens nothing."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from diffood.runtime.method.plan import Combination
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.registry import Witness
from diffood.runtime.records import Record

FAR_OUT = 30.0  # standard deviations, where the series is exact to the last digit and erfc has not underflowed (37)

Positive = Annotated[float, Field(gt=0)]


class FittedWitness(Record):
    """A witness and the distribution of its values on in-distribution images.

    Attributes:
        name: The witness.
        center: Mean of the values.
        scale: Their standard deviation.
        power: Of Yeo and Johnson's transformation of the standardised values: 1 for none; at 0 and 2 it is a logarithm
            of one side.
        center_bent: Mean after the transformation.
        scale_bent: Standard deviation after it.
        weight: In the combination; all weights add up to 1.
    """

    name: Witness
    center: float
    scale: Positive
    power: Annotated[float, Field(ge=0, le=2)] = 1.0
    center_bent: float = 0.0
    scale_bent: Positive = 1.0
    weight: Annotated[float, Field(ge=0, le=1)]

    def standardised(self, values: Float) -> Float:
        """Values [...] in standard deviations above the in-distribution mean, after the transformation."""
        return standardise([self], values[..., None])[..., 0]


def fuse(witnesses: Sequence[FittedWitness], how: Combination, values: Float) -> Float:
    """One score [...] from the values [..., W] of fitted witnesses."""
    return combine(standardise(witnesses, values), np.array([witness.weight for witness in witnesses]), how)


def standardise(witnesses: Sequence[FittedWitness], values: Float) -> Float:
    """Values [..., W] of fitted witnesses in standard deviations above their in-distribution means."""
    fitted = [(w.center, w.scale, w.power, w.center_bent, w.scale_bent) for w in witnesses]
    center, scale, power, center_bent, scale_bent = np.array(fitted).T
    return np.asarray((bend((values - center) / scale, power) - center_bent) / scale_bent)


def bend(values: Float, power: float | Float) -> Float:
    """Transform values [...] monotonically so that a skewed sample becomes nearly normal; power 1 leaves them.

    Yeo and Johnson 2000, "A new family of power transformations", sec. 2: Box and Cox's power of 1 + v for v >= 0, and
    of 1 - v with 2 - power, mirrored, below. For power in 0 … 2 neither side is bounded, and infinities stay infinite.
    """
    power = np.asarray(power, np.float64)
    return np.asarray(_box_cox(np.maximum(values, 0), power) - _box_cox(np.maximum(-values, 0), 2 - power))


def _box_cox(values: Float, power: Float) -> Float:
    """Box and Cox's transformation of 1 + values, for values >= 0 and powers >= 0; power 0 is the logarithm."""
    logarithm = np.log1p(values)
    divisor = np.where(power == 0, 1.0, power)
    with np.errstate(over="ignore"):  # far out, a power is infinite
        return np.where(power == 0, logarithm, np.expm1(divisor * logarithm) / divisor)


def combine(standardised: Float, weights: Float, how: Combination) -> Float:
    """One score [...] from standardised witnesses [..., W] and their weights [W].

    "sum": their weighted mean. "tail": that of -log P(Z > z), Z standard normal: Fisher's statistic (1932), weighted.
    Far out it grows with the square, so that one clear witness outweighs others that say nothing. NaN if a witness is
    not finite: the tail of -inf is 0, which would pass as in-distribution.
    """  # not by `@`: a product of matrices rounds by the place of a row
    standardised = np.where(np.isfinite(standardised), standardised, np.nan)
    if how == "sum":
        return np.asarray((standardised * weights).sum(axis=-1))
    with np.errstate(over="ignore", invalid="ignore"):  # the square of a score beyond 1e154 is infinite; NaN stays
        return np.asarray((np.asarray(_surprises(standardised), np.float64) * weights).sum(axis=-1))


def _surprise(z: float) -> float:
    """-log P(Z > z) of a standard normal Z, for any z, without scipy, which is slow to load on a device."""
    if z < 0:
        return -math.log1p(-math.erfc(-z * math.sqrt(0.5)) / 2)
    if z < FAR_OUT:
        return -math.log(math.erfc(z * math.sqrt(0.5)) / 2)
    inverse = 1 / (z * z)  # the asymptotic series of the tail, Abramowitz and Stegun 26.2.12
    series = inverse * (-1 + inverse * (3 + inverse * (-15 + inverse * 105)))
    return z * z / 2 + math.log(z) + math.log(2 * math.pi) / 2 - math.log1p(series)


_surprises = np.frompyfunc(_surprise, 1, 1)
