"""A fused score against each of its witnesses alone, on the same images; the tests are in `intervals`, `bootstrap`."""

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
class Alone:
    """What one witness finds without the others.

    auroc: by set. mean_auroc and mean_fpr_at_95_detection: each set counting the same. difference: mean AUROC of the
    fusion less the witness's, DeLong's paired 95 % interval and p-value, as if no other witness were compared. fpr:
    mean FPR@95 of the fusion against the witness's. ahead: the sets on which the witness is above the fusion by more
    than CLEARLY, with that difference of AUROC.
    """

    auroc: dict[str, float]
    mean_auroc: float
    mean_fpr_at_95_detection: float
    difference: Difference
    fpr: FprComparison
    ahead: dict[str, float]


@dataclass(frozen=True)
class WitnessComparison:
    """All witnesses of a fusion by name. best: the one of the highest mean AUROC, the first of equal ones."""

    alone: dict[str, Alone]
    best: str

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; the high end of a ratio that has none is None."""
        alone = {name: asdict(row) for name, row in self.alone.items()}
        for row in alone.values():
            ratio = row["fpr"]["ratio"]
            if ratio and not isfinite(ratio["high"]):
                ratio["high"] = None
        return {"best": self.best, "alone": alone}


def compare_witnesses(fused: ScoredSets, witnesses: Mapping[str, ScoredSets]) -> WitnessComparison:
    """Compare a fused score with each witness, one or more, by name. All are of the same images in the same order.

    A witness counts as measured: neither AUROC nor FPR@95 depends on its scale. Raises UsageError for unusable values,
    other images, and fewer than two images on a side.
    """
    together = _areas(fused)
    alone = {}
    for name, witness in witnesses.items():
        areas = _areas(witness)
        gains = {key: area - together[key] for key, area in areas.items()}
        alone[name] = Alone(
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
