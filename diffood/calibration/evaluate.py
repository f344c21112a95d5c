"""Scores a test set and OOD sets against a calibrated bundle, and collects the numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.by_class import ClassAlarms, alarms_by_class
from diffood.calibration.calibrate import ScoredFiles
from diffood.calibration.intervals import Interval, ScoredSets, mean_auroc_interval
from diffood.calibration.metrics import FalseAlarms, SetMetrics, auroc, false_alarms, set_metrics
from diffood.errors import UsageError
from diffood.runtime.decision import Calibration, decide

FEWEST_FOR_INTERVAL = 2  # images on a side; one has no variance


@dataclass(frozen=True)
class Evaluation:
    """Numbers of one evaluation; rates and areas are fractions of 1. scores: by set, "ind" the test set's.

    thresholds: by set, what each score was compared with, float64 [n]; threshold: that of all images; class_thresholds:
    those of predicted classes, empty where all share one.
    intervals: DeLong's 95 % of each set's AUROC; mean_interval: of their mean, which knows that all sets share the InD
    images. by_class: false alarms by predicted class, the highest rate first.
    """

    false_alarms: FalseAlarms
    by_class: tuple[ClassAlarms, ...]
    sets: dict[str, SetMetrics]
    intervals: dict[str, Interval]
    mean_auroc: float
    mean_interval: Interval
    threshold: float
    class_thresholds: dict[int, float]
    alpha: float
    guarantee: str
    unet_evaluations: int
    set_aside: dict[str, int]
    scores: dict[str, npt.NDArray[np.float64]]
    thresholds: dict[str, npt.NDArray[np.float64]]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values, with `auroc` by set; the scores are left out."""
        return {
            "auroc": {name: metrics.auroc for name, metrics in self.sets.items()},
            "auroc_interval": {name: [found.low, found.high] for name, found in self.intervals.items()},
            "mean_auroc": self.mean_auroc,
            "mean_auroc_interval": [self.mean_interval.low, self.mean_interval.high],
            "false_alarms": asdict(self.false_alarms),
            "false_alarms_by_class": [asdict(row) for row in self.by_class],
            "sets": {name: asdict(metrics) for name, metrics in self.sets.items()},
            "threshold": self.threshold,
            "class_thresholds": {str(k): value for k, value in self.class_thresholds.items()},
            "alpha": self.alpha,
            "guarantee": self.guarantee,
            "unet_evaluations_per_image": self.unet_evaluations,
            "set_aside": self.set_aside,
        }


def evaluate(
    calibration: Calibration, unet_evaluations: int, ind: ScoredFiles, ood: Mapping[str, ScoredFiles]
) -> Evaluation:
    """Compare each OOD set with the InD test set at the calibrated thresholds. Raises UsageError for an empty set."""
    if not ood:
        raise UsageError("No OOD set given: add --ood NAME=DIR, once for each.")
    for name, files in {"ind": ind, **ood}.items():
        if len(files.scores) == 0:
            raise UsageError(f"No usable image in the {name} set; {len(files.set_aside)} files were set aside.")
    thresholds = {
        name: decide(files.scores, files.predicted, calibration).thresholds
        for name, files in {"ind": ind, **ood}.items()
    }
    sets = {name: set_metrics(ind.scores, files.scores, thresholds[name]) for name, files in ood.items()}
    return Evaluation(
        false_alarms=false_alarms(ind.scores, thresholds["ind"]),
        by_class=alarms_by_class(ind.scores, ind.predicted, thresholds["ind"], calibration.alpha),
        sets=sets,
        intervals={name: _area_interval(ind, {name: files}) for name, files in ood.items()},
        mean_auroc=float(np.mean([metrics.auroc for metrics in sets.values()])),
        mean_interval=_area_interval(ind, ood),
        threshold=calibration.threshold,
        class_thresholds=calibration.own_thresholds,
        alpha=calibration.alpha,
        guarantee=calibration.guarantee,
        unet_evaluations=unet_evaluations,
        set_aside={name: len(files.set_aside) for name, files in {"ind": ind, **ood}.items()},
        scores={"ind": ind.scores} | {name: files.scores for name, files in ood.items()},
        thresholds=thresholds,
    )


def _area_interval(ind: ScoredFiles, ood: Mapping[str, ScoredFiles]) -> Interval:
    """Mean AUROC over the sets with DeLong's interval; where a side has a single image, nothing is known: 0 to 1."""
    if min(len(files.scores) for files in (ind, *ood.values())) < FEWEST_FOR_INTERVAL:
        return Interval(float(np.mean([auroc(ind.scores, files.scores) for files in ood.values()])), 0.0, 1.0)
    return mean_auroc_interval(ScoredSets(ind.scores, {name: files.scores for name, files in ood.items()}))
