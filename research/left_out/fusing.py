"""Fuses any scores as the product fuses its witnesses, so that candidates can be tried before they are witnesses."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import yeojohnson_normmax

from diffood.calibration.fusing.stages import fit_stage, score_in_stages
from diffood.calibration.fusing.witnesses import fit_witnesses, weigh
from diffood.runtime.method.fusion import bend, combine
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.registry import Witness


def fit_tail(fitted: Sequence[Float]) -> Callable[[Sequence[Float]], Float]:
    """Fit on in-distribution scores [n], each made nearly normal; gives the weighted normal tail of others [N].

    See `fit_witnesses` and `combine`, whose rule this is.
    """
    normal = [_fit_normal(values) for values in fitted]
    weights = weigh(np.stack([make(values) for make, values in zip(normal, fitted, strict=True)]))

    def score(found: Sequence[Float]) -> Float:
        standard = np.stack([make(values) for make, values in zip(normal, found, strict=True)], 1)
        return combine(standard, weights, "tail")

    return score


def fit_in_stages(
    plan: Plan, columns: Mapping[int, Mapping[Witness, Float]], values: Callable[[str, int], Float]
) -> Callable[[str], Float]:
    """Scores of a set by a plan whose stages are fitted as `calibrate` fits them.

    Args:
        plan: The plan.
        columns: Of in-distribution images after each number of repeats, [n] by witness.
        values: Of a set after so many repeats, [N, W].
    """
    stages = [fit_stage(repeats, columns[repeats], plan.combine) for repeats in plan.stages]
    last = fit_witnesses(columns[plan.repeats], plan.combine)

    def score(name: str) -> Float:
        found = [values(name, repeats) for repeats in (*plan.stages, plan.repeats)]
        return score_in_stages(stages, last, plan.combine, found)[0]

    return score


def _fit_normal(values: Float) -> Callable[[Float], Float]:
    centre, scale = values.mean(), values.std(ddof=1)
    power = float(np.clip(yeojohnson_normmax((values - centre) / scale), 0, 2))
    bent = bend((values - centre) / scale, power)
    mean, deviation = bent.mean(), bent.std(ddof=1)
    return lambda found: np.asarray((bend((found - centre) / scale, power) - mean) / deviation)
