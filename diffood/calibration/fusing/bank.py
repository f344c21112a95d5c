"""Fits what witnesses know of in-distribution images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffood.runtime.method.scoring import Array, Float
from diffood.runtime.method.witnesses.definition import Reference
from diffood.runtime.method.witnesses.registry import WITNESSES, Witness


@dataclass(frozen=True)
class FittedReference:
    """What a witness knows of n images.

    Attributes:
        reference: Its arrays by name.
        own: What it says of each of these images, float64 [n], had that been left out, as a new image is.
    """

    reference: Reference
    own: Float


def fit_bank(names: Sequence[Witness], vectors: Mapping[str, Array], logits: Array) -> dict[Witness, FittedReference]:
    """Fit those of the named witnesses that compare images, on vectors [n, L] by name and logits [n, K]."""
    compared = [(name, how) for name in names if (how := WITNESSES[name].comparison)]
    return {name: FittedReference(*how.fit(vectors[how.vector], logits)) for name, how in compared}
