"""Collects the metrics of a scored in-distribution test set and of scored OOD sets against a calibration."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.metrics.by_class import ClassAlarms, alarms_by_class
from diffood.calibration.metrics.comparison import WitnessComparison, compare_witnesses
from diffood.calibration.metrics.groups import FEWEST_FOR_INTERVAL, Group, GroupMetrics, group_metrics, near_and_far
from diffood.calibration.metrics.intervals import Interval, ScoredSets
from diffood.calibration.metrics.labels import labels_from_folders
from diffood.calibration.metrics.rates import FalseAlarms, SetMetrics, false_alarms, set_metrics
from diffood.calibration.metrics.rejection import Rejection, measure_rejection
from diffood.calibration.scored_files import IND, ScoredFiles, describe_unusable
from diffood.calibration.seen import NOTHING_SEEN, SeenImages
from diffood.errors import UsageError
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.fusion import FusionRecord
from diffood.runtime.decision import DecisionRule
from diffood.runtime.method.fusion import fuse
from diffood.runtime.method.witnesses.registry import measurable


@dataclass(frozen=True)
class IndEvaluation:
    """Results on an InD test set; rates are fractions of 1. `by set` includes the OOD sets where there are any.

    Attributes:
        false_alarms: On the InD test set.
        by_class: False alarms by predicted class, the highest rate first.
        rejection: Accuracy under rejection; None unless the class of every InD image is known.
        labelled: Number of InD images whose class is known.
        threshold: The threshold of all images.
        class_thresholds: Thresholds of predicted classes with their own; empty where all share one.
        alpha: The false-alarm rate that the calibration was asked for.
        guarantee: What the calibration promises.
        unet_evaluations: Spent on an InD image, on average.
        set_aside: Number of files that could not be used, by set.
        conversions: By set, number of files by kind of change while they were read.
        seen: By set, number of files that were used before, by what used them (`seen.SeenImages`).
        scores: By set, float64 [n].
        thresholds: What each score was compared with, by set, float64 [n].
    """

    false_alarms: FalseAlarms
    by_class: tuple[ClassAlarms, ...]
    rejection: Rejection | None
    labelled: int
    threshold: float
    class_thresholds: dict[int, float]
    alpha: float
    guarantee: str
    unet_evaluations: float
    set_aside: dict[str, int]
    conversions: dict[str, Counter[str]]
    seen: dict[str, dict[str, int]]
    scores: dict[str, npt.NDArray[np.float64]]
    thresholds: dict[str, npt.NDArray[np.float64]]

    @property
    def images(self) -> dict[str, int]:
        """Number of scored images by set."""
        return {name: scores.size for name, scores in self.scores.items()}

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, without the scores."""
        return {
            "false_alarms": asdict(self.false_alarms),
            "false_alarms_by_class": [asdict(row) for row in self.by_class],
            "rejection": self.rejection.as_json() if self.rejection else None,
            "labelled": self.labelled,
            "threshold": self.threshold,
            "class_thresholds": {str(k): value for k, value in self.class_thresholds.items()},
            "alpha": self.alpha,
            "guarantee": self.guarantee,
            "unet_evaluations_per_image": self.unet_evaluations,
            "set_aside": self.set_aside,
            "conversions": self.conversions,
            "seen": self.seen,
        }


@dataclass(frozen=True)
class Evaluation(IndEvaluation):
    """Results on an InD test set and OOD sets; rates and areas are fractions of 1.

    Attributes:
        sets: Metrics of each OOD set, by name.
        intervals: DeLong's 95 % interval of the AUROC, by OOD set.
        fpr_intervals: 95 % bootstrap interval of the FPR@95, by OOD set.
        overall: Means over all OOD sets.
        groups: Means over the near sets and over the far sets, where there are any.
        witnesses: Each witness of a fused score alone; None for a score of one witness, and where a side has a single
            image.
    """

    sets: dict[str, SetMetrics]
    intervals: dict[str, Interval]
    fpr_intervals: dict[str, Interval]
    overall: GroupMetrics
    groups: dict[Group, GroupMetrics]
    witnesses: WitnessComparison | None

    @property
    def mean_auroc(self) -> float:
        """Mean over all sets, each with the same weight."""
        return self.overall.mean.auroc

    @property
    def mean_interval(self) -> Interval:
        """DeLong's 95 % interval of the mean AUROC; it accounts for the InD images that all sets share."""
        return self.overall.auroc

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, with `auroc` by set and without the scores."""
        return {
            "auroc": {name: metrics.auroc for name, metrics in self.sets.items()},
            "auroc_interval": {name: _ends(found) for name, found in self.intervals.items()},
            "mean_auroc": self.mean_auroc,
            "mean_auroc_interval": _ends(self.mean_interval),
            "fpr_at_95_detection_interval": {name: _ends(found) for name, found in self.fpr_intervals.items()},
            "sets": {name: asdict(metrics) for name, metrics in self.sets.items()},
            "overall": asdict(self.overall),
            "groups": {name: asdict(group) for name, group in self.groups.items()},
            "witnesses": self.witnesses.as_json() if self.witnesses else None,
            **super().as_json(),
        }


def evaluate_ind(
    calibration: Calibration,
    ind: ScoredFiles,
    class_names: Sequence[str] = (),
    ood: Mapping[str, ScoredFiles] | None = None,
    seen: SeenImages = NOTHING_SEEN,
) -> IndEvaluation:
    """Measure the false alarms of an InD test set at the calibrated thresholds.

    Args:
        calibration: The thresholds.
        ind: Scored InD test files.
        class_names: Of the classifier; InD files in folders with these names have known classes.
        ood: Scored files of each OOD set, by name.
        seen: Images that the bundle was made with.

    Raises:
        UsageError: A set is empty.
    """
    every = {IND: ind, **(ood or {})}
    for name, files in every.items():
        if len(files.scores) == 0:
            raise UsageError(describe_unusable(name, files.set_aside))
    rule = DecisionRule.of(calibration)
    thresholds = {name: rule.decide(files.scores, files.predicted).thresholds for name, files in every.items()}
    labels = labels_from_folders(ind.ids, class_names)
    labelled = int(np.count_nonzero(labels >= 0))
    unknown = np.concatenate([files.scores for files in (ood or {}).values()]) if ood else None
    return IndEvaluation(
        false_alarms=false_alarms(ind.scores, thresholds[IND]),
        by_class=alarms_by_class(ind.scores, ind.predicted, thresholds[IND], calibration.alpha),
        rejection=(measure_rejection(ind.scores, labels, ind.predicted, unknown) if labelled == len(labels) else None),
        labelled=labelled,
        threshold=calibration.threshold,
        class_thresholds=calibration.own_thresholds,
        alpha=calibration.alpha,
        guarantee=calibration.guarantee,
        unet_evaluations=float(ind.evaluations.mean()),
        set_aside={name: len(files.set_aside) for name, files in every.items()},
        conversions={name: files.conversions for name, files in every.items()},
        seen={name: found for name, files in every.items() if (found := seen.counts(files.sha256, ind.sha256, name))},
        scores={name: files.scores for name, files in every.items()},
        thresholds=thresholds,
    )


def evaluate_scores(
    calibration: Calibration,
    ind: ScoredFiles,
    ood: Mapping[str, ScoredFiles],
    groups: Mapping[str, Group] | None = None,
    class_names: Sequence[str] = (),
    seen: SeenImages = NOTHING_SEEN,
) -> Evaluation:
    """Compare each OOD set with the InD test set at the calibrated thresholds.

    Args:
        calibration: The thresholds.
        ind: Scored InD test files.
        ood: Scored files of each OOD set, by name; at least one.
        groups: "near" or "far" of each OOD set that is either.
        class_names: Of the classifier; InD files in folders with these names have known classes.
        seen: Images that the bundle was made with.

    Raises:
        UsageError: A set is empty, or a group is given for an unknown set.
    """
    found = evaluate_ind(calibration, ind, class_names, ood, seen)
    sets = {name: set_metrics(ind.scores, files.scores, found.thresholds[name]) for name, files in ood.items()}
    scored = ScoredSets(ind.scores, {name: files.scores for name, files in ood.items()})
    single = {name: group_metrics(ScoredSets(scored.ind, {name: scored.sets[name]}), sets) for name in ood}
    return Evaluation(
        **vars(found),
        sets=sets,
        intervals={name: one.auroc for name, one in single.items()},
        fpr_intervals={name: one.fpr_at_95_detection for name, one in single.items()},
        overall=group_metrics(scored, sets),
        groups=near_and_far(scored, sets, groups or {}),
        witnesses=_each_alone(calibration, scored, ind, ood),
    )


def _each_alone(
    calibration: Calibration, fused: ScoredSets, ind: ScoredFiles, ood: Mapping[str, ScoredFiles]
) -> WitnessComparison | None:
    every, witnesses = (ind, *ood.values()), calibration.fingerprint.plan.witnesses
    # an image that ends before anything is denoised has no value of some witnesses
    whole = [w for w in range(len(witnesses)) if all(np.isfinite(files.witnesses[:, w]).all() for files in every)]
    if len(witnesses) == 1 or not whole or min(len(files.scores) for files in every) < FEWEST_FOR_INTERVAL:
        return None
    found = compare_witnesses(
        fused,
        {
            witnesses[w]: ScoredSets(ind.witnesses[:, w], {name: files.witnesses[:, w] for name, files in ood.items()})
            for w in whole
        },
    )
    without = _without_unet(calibration.fusion, ind, ood) if calibration.fusion else None
    return replace(found, without_unet=compare_witnesses(fused, {"": without}).alone[""] if without else None)


def _without_unet(fusion: FusionRecord, ind: ScoredFiles, ood: Mapping[str, ScoredFiles]) -> ScoredSets | None:
    """Scores of the fusion's witnesses that need nothing denoised, with the weights they have; None without any."""
    kept = measurable(fusion.names, 0)
    fitted = [witness for witness in fusion.witnesses if witness.name in kept]
    if not fitted or len(fitted) == len(fusion.witnesses):
        return None
    columns = [fusion.names.index(witness.name) for witness in fitted]

    def score(files: ScoredFiles) -> npt.NDArray[np.float64]:
        return fuse(fitted, fusion.combine, files.witnesses[:, columns])

    return ScoredSets(score(ind), {name: score(files) for name, files in ood.items()})


def _ends(found: Interval) -> list[float]:
    return [found.low, found.high]
