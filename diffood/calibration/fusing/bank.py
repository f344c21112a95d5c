"""Fits what witnesses know of in-distribution images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffood.runtime.method.scoring import Array, Float
from diffood.runtime.method.witnesses.definition import Evidence, Reference
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


@dataclass(frozen=True)
class ComparedImages:
    """What `fit_bank` needs of in-distribution images, gathered one by one; for witnesses that compare none, nothing.

    Attributes:
        names: Of witnesses.
        logits: Of each image, [K].
        vectors: Of each image, [L], by name.
    """

    names: tuple[Witness, ...]
    logits: list[Array] = field(default_factory=list)
    vectors: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, evidence: Evidence) -> bool:
        """Keep what one image has, in copies that do not hold its batch; returns whether the vectors are finite."""
        names = {how.vector for name in self.names if (how := WITNESSES[name].comparison)}
        for name in names:
            self.vectors.setdefault(name, []).append(evidence.vectors[name].copy())
        if names:
            self.logits.append(evidence.logits.copy())
        return all(bool(np.isfinite(evidence.vectors[name]).all()) for name in names)

    def fit(self) -> dict[Witness, FittedReference]:
        """See `fit_bank`."""
        if not self.logits:
            return {}
        return fit_bank(
            self.names, {name: np.stack(rows) for name, rows in self.vectors.items()}, np.stack(self.logits)
        )
