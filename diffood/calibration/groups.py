"""Averages over groups of OOD sets, near and far, as benchmark tables give them, and each group's worst set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffood.calibration.metrics import SetMetrics
from diffood.errors import UsageError

Group = Literal["near", "far"]


@dataclass(frozen=True)
class GroupMetrics:
    """Means over the sets of one group, each set counting the same whatever its size (Zhang et al. 2023, OpenOOD 1.5).

    sets: their names, in the order given. The means are of the fields of `SetMetrics` of the same names. lowest_auroc
    and highest_fpr: name and value of the set that is worst by AUROC and by FPR@95; of equal ones the first.
    """

    sets: tuple[str, ...]
    auroc: float
    aupr_in: float
    aupr_out: float
    fpr_at_95_detection: float
    missed_at_95_kept: float
    detection_rate: float
    lowest_auroc: tuple[str, float]
    highest_fpr: tuple[str, float]


def group_metrics(sets: Mapping[str, SetMetrics], groups: Mapping[str, Group]) -> dict[Group, GroupMetrics]:
    """Metrics of each group that has sets, near before far; groups says for each set which it belongs to.

    Raises UsageError, naming them, for sets without a group, groups of unknown sets and unknown groups.
    """
    if missing := [name for name in sets if name not in groups]:
        raise UsageError(f"No group for the sets {', '.join(missing)}; say near or far for each.")
    if unknown := [name for name in groups if name not in sets]:
        raise UsageError(f"Groups for sets that were not evaluated: {', '.join(unknown)}; there are {', '.join(sets)}.")
    if wrong := [f"{name} as {group!r}" for name, group in groups.items() if group not in ("near", "far")]:
        raise UsageError(f"Unknown groups: {', '.join(wrong)}; choose near or far.")
    order: tuple[Group, ...] = ("near", "far")
    members = {group: {name: row for name, row in sets.items() if groups[name] == group} for group in order}
    return {group: _mean(rows) for group, rows in members.items() if rows}


def _mean(sets: Mapping[str, SetMetrics]) -> GroupMetrics:
    rows = list(sets.values())
    lowest = min(sets, key=lambda name: sets[name].auroc)
    highest = max(sets, key=lambda name: sets[name].fpr_at_95_detection)
    return GroupMetrics(
        sets=tuple(sets),
        auroc=float(np.mean([row.auroc for row in rows])),
        aupr_in=float(np.mean([row.aupr_in for row in rows])),
        aupr_out=float(np.mean([row.aupr_out for row in rows])),
        fpr_at_95_detection=float(np.mean([row.fpr_at_95_detection for row in rows])),
        missed_at_95_kept=float(np.mean([row.missed_at_95_kept for row in rows])),
        detection_rate=float(np.mean([row.detection_rate for row in rows])),
        lowest_auroc=(lowest, sets[lowest].auroc),
        highest_fpr=(highest, sets[highest].fpr_at_95_detection),
    )
