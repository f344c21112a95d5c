"""All witnesses by name. A new one is a WitnessDefinition in a module of this folder, and a line here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from diffood.errors import BundleError
from diffood.runtime.method.scoring import Array, Float
from diffood.runtime.method.witnesses.definition import FEATURES, BankComparison, Evidence, Reference, WitnessDefinition
from diffood.runtime.method.witnesses.inside import INSIDE, SNAPSHOT
from diffood.runtime.method.witnesses.jump import JUMP
from diffood.runtime.method.witnesses.logits import ENERGY, LOGIT_NORM, MAX_LOGIT, MSP
from diffood.runtime.method.witnesses.margin import MARGIN
from diffood.runtime.method.witnesses.reconstruction import RECONSTRUCTION

WITNESSES: dict[str, WitnessDefinition] = {
    witness.name: witness
    for witness in (JUMP, RECONSTRUCTION, LOGIT_NORM, ENERGY, MAX_LOGIT, MSP, MARGIN, INSIDE, SNAPSHOT)
}


def _require_known(name: str) -> str:
    if name not in WITNESSES:
        raise ValueError(f"no such witness; known are {', '.join(WITNESSES)}")
    return name


Witness = Annotated[str, AfterValidator(_require_known)]
"""The name of a witness."""


Bank = Mapping[Witness, Reference]
"""What witnesses know of in-distribution images."""


def measure(names: Sequence[Witness], evidence: Evidence, bank: Bank | None = None) -> Float:
    """Values float64 [..., W] of the named witnesses; NaN for those that need what is not there.

    Raises BundleError for a bank of vectors of another length.
    """
    values = np.full((*evidence.logits.shape[:-1], len(names)), np.nan)
    for column, name in enumerate(names):
        witness = WITNESSES[name]
        if witness.of_logits:
            values[..., column] = witness.of_logits(evidence.logits)
        elif name in evidence.distances:
            mean = evidence.distances[name].mean(axis=(-2, -1), dtype=np.float64)
            values[..., column] = np.sqrt(mean) if witness.reduce == "root" else mean
        elif (how := witness.comparison) and bank and name in bank and how.vector in evidence.vectors:
            values[..., column] = _compare(name, how, bank[name], evidence.vectors[how.vector], evidence.logits)
    return values


def _compare(name: Witness, how: BankComparison, reference: Reference, vectors: Array, logits: Array) -> Float:
    require_width(name, reference, vectors.shape[-1])
    pairs = zip(vectors.reshape(-1, vectors.shape[-1]), logits.reshape(-1, logits.shape[-1]), strict=True)
    return np.array([how.measure(reference, *pair) for pair in pairs]).reshape(logits.shape[:-1])


def require_width(name: Witness, reference: Reference, width: int) -> None:
    """Raise BundleError unless a reference is of vectors of this length."""
    how = WITNESSES[name].comparison
    assert how is not None
    array, axes = next((array, axes) for array, axes in how.axes.items() if "D" in axes)
    known = reference[array].shape[axes.index("D")]
    if known != width:
        raise BundleError(
            f"The bank of the calibration has {known} values for the witness {name}, and the models give {width}: "
            "it was fitted with other models. Calibrate again."
        )


def measurable(names: tuple[Witness, ...], repeats: int) -> tuple[Witness, ...]:
    """Those of the names that can be measured after so many repeats: without one, the classifier's own."""
    return names if repeats else tuple(name for name in names if not WITNESSES[name].denoises)


def need_bank(names: Iterable[Witness]) -> tuple[Witness, ...]:
    """Those of the names that compare an image with in-distribution ones."""
    return tuple(name for name in names if WITNESSES[name].comparison)


def inner_vectors(names: Iterable[Witness]) -> tuple[str, ...]:
    """The vectors from inside the networks that the names compare, each once."""
    compared = [how.vector for name in names if (how := WITNESSES[name].comparison)]
    return tuple(dict.fromkeys(vector for vector in compared if vector != FEATURES))


def classify_denoised(names: Iterable[Witness]) -> bool:
    """Whether any of the names needs denoised images classified."""
    return any(WITNESSES[name].classifies_denoised for name in names)
