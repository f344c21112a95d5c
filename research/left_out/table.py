"""Makes the tables of near- and far-OOD detection, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffood.calibration.metrics.intervals import (
    Difference,
    Interval,
    ScoredSets,
    mean_auroc_difference,
    mean_auroc_interval,
)
from diffood.calibration.metrics.rates import auroc, fpr_at_95_detection
from research.left_out.cache import SplitCache
from research.left_out.scores import EVALUATIONS, OWN, score_all

KINDS = ("near", "far")


@dataclass(frozen=True)
class KindResult:
    """What a detector finds of one kind of sets.

    Attributes:
        auroc: Mean over the sets.
        fpr: Mean FPR@95 over the sets.
        gain: Mean AUROC of the first plan minus this on the same images; None for the first itself and without one.
    """

    auroc: Interval
    fpr: float
    gain: Difference | None


@dataclass(frozen=True)
class DetectorResult:
    """What a detector finds in one split.

    Attributes:
        name: Of the detector.
        classes: AUROC and FPR@95 of each class left out.
        kinds: Over near and far sets.
    """

    name: str
    classes: Mapping[str, tuple[float, float]]
    kinds: Mapping[str, KindResult]


def measure_split(path: Path) -> list[DetectorResult]:
    """All detectors on one cache, the project's plans first where there is a UNet."""
    scores = score_all(SplitCache(path))
    first, found = next(iter(scores.items()))
    own = found if first.startswith(OWN) else None
    return [_measure(name, found, own) for name, found in scores.items()]


def _measure(name: str, scored: ScoredSets, own: ScoredSets | None) -> DetectorResult:
    kinds = {}
    for kind in KINDS:
        these = _of_kind(scored, kind)
        gain = None
        if own and own is not scored:
            gain = mean_auroc_difference(_first(_of_kind(own, kind), scored), these)
        kinds[kind] = KindResult(
            mean_auroc_interval(these),
            float(np.mean([fpr_at_95_detection(these.ind, ood) for ood in these.sets.values()])),
            gain,
        )
    near = _of_kind(scored, "near")
    classes = {key: (auroc(near.ind, ood), fpr_at_95_detection(near.ind, ood)) for key, ood in near.sets.items()}
    return DetectorResult(name, classes, kinds)


def _of_kind(scored: ScoredSets, kind: str) -> ScoredSets:
    sets = {key.removeprefix(f"{kind}-"): ood for key, ood in scored.sets.items() if key.startswith(kind)}
    return ScoredSets(scored.ind, sets)


def _first(scored: ScoredSets, like: ScoredSets) -> ScoredSets:
    """The same images as another detector saw, which may have been given the first of each set alone."""
    sizes = {key.split("-", 1)[1]: len(ood) for key, ood in like.sets.items()}
    return ScoredSets(scored.ind[: len(like.ind)], {key: ood[: sizes[key]] for key, ood in scored.sets.items()})


def split_table(results: Sequence[DetectorResult]) -> str:
    """One split in percent: AUROC (and FPR@95) of each class left out, and means with 95 % intervals."""
    classes = list(results[0].classes)
    named = [f"class {label}" if label.isdigit() else label for label in classes]
    head = [*named, "near", "first is better by", "far", "first is better by"]
    lines = [f"| | UNet | {' | '.join(head)} |", "|" + "---|" * (len(head) + 2)]
    for row in results:
        cells = [f"{100 * area:.1f} ({100 * fpr:.0f})" for area, fpr in row.classes.values()]
        for found in row.kinds.values():
            cells += [_interval(found.auroc), _difference(found.gain)]
        lines.append(f"| {row.name} | {EVALUATIONS.get(row.name, '0')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_table(splits: Sequence[Sequence[DetectorResult]]) -> str:
    """Means over splits in percent: AUROC, FPR@95, and by how much the first is better.

    Splits share held-out images, so their errors may go together: the interval of a mean is as wide as the mean of the
    splits' intervals, which holds however they do.
    """
    head = [text for kind in KINDS for text in (kind, f"{kind} FPR@95", "first is better by")]
    lines = [f"| | UNet | {' | '.join(head)} |", "|" + "---|" * (len(head) + 2)]
    for rows in zip(*_in_common(splits), strict=True):
        cells = []
        for kind in KINDS:
            found = [row.kinds[kind] for row in rows]
            gains = [each.gain for each in found if each.gain]
            cells += [_interval(mean_interval([each.auroc for each in found]))]
            cells += [f"{100 * np.mean([each.fpr for each in found]):.1f}"]
            cells += [_difference(mean_interval(gains) if gains else None)]
        lines.append(f"| {rows[0].name} | {EVALUATIONS.get(rows[0].name, '0')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_common(splits: Sequence[Sequence[DetectorResult]]) -> list[list[DetectorResult]]:
    names = [row.name for row in splits[0] if all(row.name in {r.name for r in other} for other in splits)]
    return [[next(row for row in rows if row.name == name) for name in names] for rows in splits]


def mean_interval(found: Iterable[Interval | Difference]) -> Interval:
    """The mean of estimates and of the ends of their intervals."""
    value, low, high = np.mean([(each.value, each.low, each.high) for each in found], axis=0)
    return Interval(float(value), float(low), float(high))


def _interval(found: Interval) -> str:
    return f"{100 * found.value:.1f} ({100 * found.low:.1f}–{100 * found.high:.1f})"


def _difference(found: Interval | Difference | None) -> str:
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})" if found else ""


def print_tables(paths: Sequence[Path]) -> None:
    """A table for each cache, and one of their means."""
    splits = []
    for path in paths:
        splits.append(measure_split(path))
        print(f"\n{path.stem}\n\n{split_table(splits[-1])}", flush=True)
    if len(splits) > 1:
        print(f"\nmean of {', '.join(path.stem for path in paths)}\n\n{mean_table(splits)}")
