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
    """Values float64 [W] of the named witnesses; those that need a bank take unit rows float32 [B, D]."""
    return np.array([WITNESSES[name].measure(evidence, bank) for name in names], np.float64)


def measure_in_bank(name: Witness, features: Array, bank: Array) -> Float:
    """Values float64 [B] of one witness for the features [B, D] that the bank was made of, each without its own row."""
    measure_row = WITNESSES[name].measure_in_bank
    assert measure_row is not None
    return np.array([measure_row(row, bank) for row in features])


def measurable(names: tuple[Witness, ...], repeats: int) -> tuple[Witness, ...]:
    """Those of the names that can be measured after so many repeats: without one, the classifier's own."""
    return names if repeats else tuple(name for name in names if not WITNESSES[name].needs_repeats)


def need_bank(names: Iterable[Witness]) -> tuple[Witness, ...]:
    """Those of the names that compare an image with a bank of features."""
    return tuple(name for name in names if WITNESSES[name].measure_in_bank)


def classify_denoised(names: Iterable[Witness]) -> bool:
    """Whether any of the names needs denoised images classified."""
    return any(WITNESSES[name].classifies_denoised for name in names)
