"""Standardises witnesses on in-distribution values, and weights them. Pure arithmetic, no images."""

from collections.abc import Mapping

import numpy as np

from diffood.errors import CalibrationError
from diffood.runtime.method.fusion import FittedWitness, bend
from diffood.runtime.method.plan import Combination
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.registry import Witness

SHRINKAGE = 0.2  # of correlations, so that chance in few images does not decide a weight
ROUNDING = 1e-6  # relative; ten times that of float32, since engines sum; a smaller deviation is rounding alone


def fit_witnesses(columns: Mapping[Witness, Float], how: Combination) -> tuple[FittedWitness, ...]:
    """Standardise witnesses, float64 [n] each, and weight them. Raises CalibrationError where one does not vary.

    "sum" takes them without a transformation, with equal weights. For "tail" each is first made nearly normal, as a
    heavy tail would make what is merely rare look impossible, and weighted by `weigh`.
    """
    fitted, standard = [], []
    for name, values in columns.items():
        center, scale = float(values.mean()), float(values.std(ddof=1))
        if scale <= ROUNDING * abs(center):
            raise CalibrationError(
                f"The witness {name} has mean {center:g} and deviation {scale:g} on these {len(values)} images: "
                f"it does not vary, so it is useless. Give images that differ, or leave {name} out with --witnesses."
            )
        found = FittedWitness(name=name, center=center, scale=scale, weight=0.0)
        if how == "tail":
            found = _bent(found, values)
        fitted.append(found)
        standard.append(found.standardised(values))
    weights = weigh(np.array(standard)) if how == "tail" else np.full(len(fitted), 1 / len(fitted))
    return tuple(
        found.model_copy(update={"weight": float(weight)}) for found, weight in zip(fitted, weights, strict=True)
    )


def _bent(witness: FittedWitness, values: Float) -> FittedWitness:
    """The witness with the power that makes its values [n] most likely normal (Yeo and Johnson 2000, sec. 3)."""
    from scipy.stats import yeojohnson_normmax

    standard = (values - witness.center) / witness.scale
    # a power beyond 0 or 2 would bound what bent values can reach, and hide how extreme an image is
    power = float(np.clip(yeojohnson_normmax(standard), 0, 2))
    bent = bend(standard, power)
    center, scale = float(bent.mean()), float(bent.std(ddof=1))
    return witness.model_copy(update={"power": power, "center_bent": center, "scale_bent": scale})


def weigh(standardised: Float) -> Float:
    """Weights [W] with the sum 1 of standardised witnesses [W, n]; correlated witnesses share their weight.

    The combination with the least variance on in-distribution images (Bates and Granger 1969, "The combination of
    forecasts"), no weight below 0, with the correlations shrunk by 1 / (1 + SHRINKAGE).
    """
    correlation = np.corrcoef(standardised).reshape(len(standardised), -1)
    weights = np.linalg.solve(correlation + SHRINKAGE * np.eye(len(correlation)), np.ones(len(correlation)))
    positive = np.maximum(weights, 0)
    return np.asarray(positive / positive.sum())
