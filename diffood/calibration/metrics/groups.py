"""Computes the metrics of a group of OOD sets (near, far or all) as benchmark tables list them, and its worst sets."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from diffood.calibration.metrics.bootstrap import mean_fpr_interval
from diffood.calibration.metrics.intervals import Interval, ScoredSets, mean_auroc_interval
from diffood.calibration.metrics.rates import Rates, SetMetrics
from diffood.errors import UsageError

Group = Literal["near", "far"]
GROUPS: tuple[Group, ...] = ("near", "far")

FEWEST_FOR_INTERVAL = 2  # images on a side; one has no variance


@dataclass(frozen=True)
class GroupMetrics:
    """Means over the sets of one group, each set with the same weight (Zhang et al. 2023, OpenOOD 1.5).

    Both intervals account for the InD images that all sets share; they are 0 to 1 where a side has a single image.

    Attributes:
        sets: Names of the sets, in the order given.
        mean: Of each metric.
        auroc: The mean AUROC with DeLong's 95 % interval.
        fpr_at_95_detection: The mean FPR@95 with its 95 % bootstrap interval.
        lowest_auroc: Name of the set that is worst by AUROC; the first of equal ones.
        highest_fpr: Name of the set that is worst by FPR@95; the first of equal ones.
    """

    sets: tuple[str, ...]
    mean: Rates
    auroc: Interval
    fpr_at_95_detection: Interval
    lowest_auroc: str
    highest_fpr: str


def group_metrics(scored: ScoredSets, sets: Mapping[str, SetMetrics]) -> GroupMetrics:
    """Metrics of the group of all sets in `scored`. `sets` has the metrics of each of them, and may have others."""
    rows = {name: sets[name] for name in scored.sets}
    mean = Rates(
        **{one.name: float(np.mean([getattr(row, one.name) for row in rows.values()])) for one in fields(Rates)}
    )
    if min(scored.ind.size, *(scores.size for scores in scored.sets.values())) < FEWEST_FOR_INTERVAL:
        area, rate = Interval(mean.auroc, 0.0, 1.0), Interval(mean.fpr_at_95_detection, 0.0, 1.0)
    else:
        area, rate = mean_auroc_interval(scored), mean_fpr_interval(scored)
    return GroupMetrics(
        sets=tuple(rows),
        mean=mean,
        auroc=area,
        fpr_at_95_detection=rate,
        lowest_auroc=min(rows, key=lambda name: rows[name].auroc),
        highest_fpr=max(rows, key=lambda name: rows[name].fpr_at_95_detection),
    )


def near_and_far(
    scored: ScoredSets, sets: Mapping[str, SetMetrics], groups: Mapping[str, Group]
) -> dict[Group, GroupMetrics]:
    """Metrics of each group that has sets, near before far. `groups` has the group of each set that belongs to one.

    Raises UsageError for a set that was not evaluated and for an unknown group.
    """
    if unknown := [name for name in groups if name not in scored.sets]:
        raise UsageError(
            f"Groups for sets that were not evaluated: {', '.join(unknown)}; there are {', '.join(scored.sets)}."
        )
    if wrong := [f"{name} as {group!r}" for name, group in groups.items() if group not in GROUPS]:
        raise UsageError(f"Unknown groups: {', '.join(wrong)}; choose near or far.")
    found = {}
    for group in GROUPS:
        members = {name: scores for name, scores in scored.sets.items() if groups.get(name) == group}
        if members:
            found[group] = group_metrics(ScoredSets(scored.ind, members), sets)
    return found
