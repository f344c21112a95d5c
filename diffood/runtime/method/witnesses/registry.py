"""All witnesses by name. A new one is a WitnessDefinition in a module of this folder, and a line here."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from diffood.runtime.method.scoring import Array, Float
from diffood.runtime.method.witnesses.definition import Evidence, WitnessDefinition
from diffood.runtime.method.witnesses.jump import JUMP
from diffood.runtime.method.witnesses.knn import KNN
from diffood.runtime.method.witnesses.logits import ENERGY, LOGIT_NORM, MAX_LOGIT, MSP
from diffood.runtime.method.witnesses.reconstruction import RECONSTRUCTION

WITNESSES: dict[str, WitnessDefinition] = {
    witness.name: witness for witness in (JUMP, RECONSTRUCTION, LOGIT_NORM, ENERGY, MAX_LOGIT, MSP, KNN)
}


def _require_known(name: str) -> str:
    if name not in WITNESSES:
        raise ValueError(f"no such witness; known are {', '.join(WITNESSES)}")
    return name


Witness = Annotated[str, AfterValidator(_require_known)]
"""The name of a witness."""


def measure(names: Sequence[Witness], evidence: Evidence, bank: Array | None = None) -> Float:
    """Values float64 [..., W] of the named witnesses; NaN for those that need what is not there.

    Those that compare an image with a bank take unit rows float32 [B, D].
    """
    values = np.full((*evidence.logits.shape[:-1], len(names)), np.nan)
    for column, name in enumerate(names):
        witness = WITNESSES[name]
        if witness.of_logits:
            values[..., column] = witness.of_logits(evidence.logits)
        elif name in evidence.distances:
            mean = evidence.distances[name].mean(axis=(-2, -1), dtype=np.float64)
            values[..., column] = np.sqrt(mean) if witness.reduce == "root" else mean
        elif witness.of_features and bank is not None:
            values[..., column] = measure_in_bank(name, evidence.features, bank, own=False)
    return values


def measure_in_bank(name: Witness, features: Array, bank: Array, *, own: bool) -> Float:
    """Values float64 [...] of one witness for features [..., D]; own: they are rows of the bank, which do not count.

    Row by row: a product of matrices rounds by the place of a row.
    """
    measure_row = WITNESSES[name].of_features
    assert measure_row is not None
    rows = features.reshape(-1, features.shape[-1])
    return np.array([measure_row(row, bank, own) for row in rows]).reshape(features.shape[:-1])


def measurable(names: tuple[Witness, ...], repeats: int) -> tuple[Witness, ...]:
    """Those of the names that can be measured after so many repeats: without one, the classifier's own."""
    return names if repeats else tuple(name for name in names if not WITNESSES[name].of_denoised)


def need_bank(names: Iterable[Witness]) -> tuple[Witness, ...]:
    """Those of the names that compare an image with a bank of features."""
    return tuple(name for name in names if WITNESSES[name].of_features)


def classify_denoised(names: Iterable[Witness]) -> bool:
    """Whether any of the names needs denoised images classified."""
    return any(WITNESSES[name].classifies_denoised for name in names)
