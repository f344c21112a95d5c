"""Compares a fused score with each of its witnesses alone, on the same images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from diffood.calibration.metrics.bootstrap import FprComparison, compare_fpr
from diffood.calibration.metrics.intervals import Difference, ScoredSets, mean_auroc_difference
from diffood.calibration.metrics.rates import auroc, fpr_at_95_detection

CLEARLY = 0.005
"""AUROC by which a witness must exceed the fusion on a set to be named: half a point."""


@dataclass(frozen=True)
class SingleWitness:
    """Detection by one witness without the others.

    Attributes:
        auroc: By set.
        mean_auroc: Each set with the same weight.
        mean_fpr_at_95_detection: Each set with the same weight.
        difference: Mean AUROC of the fusion minus that of the witness, with DeLong's paired 95 % interval and p-value,
            as if no other witness were compared.
        fpr: Mean FPR@95 of the fusion against that of the witness.
        ahead: Sets on which the AUROC of the witness exceeds that of the fusion by more than CLEARLY, with the
            difference.
    """

    auroc: dict[str, float]
    mean_auroc: float
    mean_fpr_at_95_detection: float
    difference: Difference
    fpr: FprComparison
    ahead: dict[str, float]


@dataclass(frozen=True)
class WitnessComparison:
    """All witnesses of a fusion, each alone.

    Attributes:
        alone: By name of the witness.
        best: The witness with the highest mean AUROC, the first of equal ones.
        without_unet: Those that need no UNet, combined; None where the fusion has none, or no others.
    """

    alone: dict[str, SingleWitness]
    best: str
    without_unet: SingleWitness | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON; an unbounded high end of a ratio is None."""
        alone = {name: asdict(row) for name, row in self.alone.items()}
        without = asdict(self.without_unet) if self.without_unet else None
        for row in [*alone.values(), *([without] if without else [])]:
            ratio = row["fpr"]["ratio"]
            if ratio and not isfinite(ratio["high"]):
                ratio["high"] = None
        return {"best": self.best, "alone": alone, "without_unet": without}


def compare_witnesses(fused: ScoredSets, witnesses: Mapping[str, ScoredSets]) -> WitnessComparison:
    """Compare a fused score with each of one or more witnesses, by name, on the same images in the same order.

    Witness values are used as measured: neither AUROC nor FPR@95 depends on their scale. Raises UsageError for unusable
    values, other images, and fewer than two images on a side.
    """
    together = _areas(fused)
    alone = {}
    for name, witness in witnesses.items():
        areas = _areas(witness)
        gains = {key: area - together[key] for key, area in areas.items()}
        alone[name] = SingleWitness(
            auroc=areas,
            mean_auroc=float(np.mean(list(areas.values()))),
            mean_fpr_at_95_detection=float(
                np.mean([fpr_at_95_detection(witness.ind, ood) for ood in witness.sets.values()])
            ),
            difference=mean_auroc_difference(fused, witness),
            fpr=compare_fpr(fused, witness),
            ahead={key: gain for key, gain in gains.items() if gain > CLEARLY},
        )
    return WitnessComparison(alone, best=max(alone, key=lambda name: alone[name].mean_auroc))


def _areas(scored: ScoredSets) -> dict[str, float]:
    return {name: auroc(scored.ind, ood) for name, ood in scored.sets.items()}
