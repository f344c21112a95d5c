"""Scores a test set and OOD sets against a calibrated bundle, and collects the numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.calibrate import ScoredFiles
from diffood.calibration.metrics import FalseAlarms, SetMetrics, false_alarms, set_metrics
from diffood.errors import UsageError
from diffood.runtime.decision import Calibration


@dataclass(frozen=True)
class Evaluation:
    """Numbers of one evaluation; rates and areas are fractions of 1. scores: by set, "ind" the test set's."""

    false_alarms: FalseAlarms
    sets: dict[str, SetMetrics]
    mean_auroc: float
    threshold: float
    alpha: float
    guarantee: str
    unet_evaluations: int
    set_aside: dict[str, int]
    scores: dict[str, npt.NDArray[np.float64]]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values, with `auroc` by set; the scores are left out."""
        return {
            "auroc": {name: metrics.auroc for name, metrics in self.sets.items()},
            "mean_auroc": self.mean_auroc,
            "false_alarms": asdict(self.false_alarms),
            "sets": {name: asdict(metrics) for name, metrics in self.sets.items()},
            "threshold": self.threshold,
            "alpha": self.alpha,
            "guarantee": self.guarantee,
            "unet_evaluations_per_image": self.unet_evaluations,
            "set_aside": self.set_aside,
        }


def evaluate(
    calibration: Calibration, unet_evaluations: int, ind: ScoredFiles, ood: Mapping[str, ScoredFiles]
) -> Evaluation:
    """Compare each OOD set with the InD test set at the calibrated threshold. Raises UsageError for an empty set."""
    if not ood:
        raise UsageError("No OOD set given: add --ood NAME=DIR, once for each.")
    for name, files in {"ind": ind, **ood}.items():
        if len(files.scores) == 0:
            raise UsageError(f"No usable image in the {name} set; {len(files.set_aside)} files were set aside.")
    sets = {name: set_metrics(ind.scores, files.scores, calibration.threshold) for name, files in ood.items()}
    return Evaluation(
        false_alarms=false_alarms(ind.scores, calibration.threshold),
        sets=sets,
        mean_auroc=float(np.mean([metrics.auroc for metrics in sets.values()])),
        threshold=calibration.threshold,
        alpha=calibration.alpha,
        guarantee=calibration.guarantee,
        unet_evaluations=unet_evaluations,
        set_aside={name: len(files.set_aside) for name, files in {"ind": ind, **ood}.items()},
        scores={"ind": ind.scores} | {name: files.scores for name, files in ood.items()},
    )
