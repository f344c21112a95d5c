"""Chooses a plan: what each costs and finds, which none beats in both, and the cheapest that is as good as the best.

**Choice.** Within the limit, the best plan is the one with the highest mean AUROC. It is the winner among hundreds on a
few hundred images, so part of its lead is luck. A plan is as good where its paired difference to it cannot be told from
0, or is below ENOUGH: a form of the one-standard-error rule (Breiman et al. 1984, sec. 3.4.3), with the difference's
95 % interval. Taken is the best of those as good that cost no more than the cheapest of them, give or take AS_CHEAP: a
hundredth of the cost, saved by a stage that few images end at, is chance too. The AUROC of what was chosen remains one
that was used to choose it: `evaluate` on other images says what it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from diffood.calibration.metrics.intervals import (
    Difference,
    Interval,
    ScoredSets,
    mean_auroc_difference,
    mean_auroc_interval,
)
from diffood.calibration.metrics.rates import auroc
from diffood.calibration.tuning.images import TuningImages
from diffood.calibration.tuning.trace_values import TraceValues, measure_trace, repeats_of
from diffood.calibration.tuning.traces import full_cost
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.fusion import FusionRecord
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import Plan

ENOUGH = 0.001  # of mean AUROC: a tenth of a point less is not worth paying for
AS_CHEAP = 0.05  # of a cost
TUNED = "tuned"  # the plan's name in the bundle

CostKind = Literal["evaluations", "milliseconds"]


@dataclass(frozen=True)
class Candidate:
    """One plan, measured. cost: of an InD image on average, in UNet evaluations or milliseconds, as the limit is.

    evaluations: the same in UNet evaluations; auroc: by OOD set; mean: of them, each counting the same.
    """

    plan: Plan
    cost: float
    evaluations: float
    auroc: dict[str, float]
    mean: Interval
    scored: ScoredSets
    record: FusionRecord | None

    @property
    def worst(self) -> str:
        """Name of the set with the lowest AUROC."""
        return min(self.auroc, key=self.auroc.__getitem__)

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the scores."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "cost": self.cost,
            "unet_evaluations": self.evaluations,
            "auroc": self.auroc,
            "mean_auroc": asdict(self.mean),
        }


@dataclass(frozen=True)
class Limit:
    """The most an image may cost on average."""

    kind: CostKind
    most: float

    def describe(self) -> str:
        """In words."""
        unit = "UNet evaluations an image" if self.kind == "evaluations" else "ms an image"
        return f"at most {self.most:g} {unit}"


# (plan, share of images that end after each number of repeats) -> cost of an image, in the limit's unit
CostOf = Callable[[Plan, Mapping[int, float]], float]


@dataclass(frozen=True)
class Choice:
    """The plan taken, and what it was taken from. below_*: AUROC of the best, within the limit or at all, less its own.

    best, anywhere: the highest mean AUROC within the limit, and at any cost that was measured.
    """

    chosen: Candidate
    best: Candidate
    anywhere: Candidate
    below_best: Difference
    below_anywhere: Difference
    front: tuple[Candidate, ...]


def measure_candidates(
    bundle: Bundle,
    groups: Mapping[Plan, Sequence[Plan]],
    images: TuningImages,
    open_trace: Callable[[Plan], Detector],
    cost_of: CostOf,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Candidate], bool]:
    """Measure traces in the order given; Ctrl-C ends with those done, True as the second value.

    progress is told UNet evaluations. A plan whose fusion cannot be fitted (a witness does not vary) is left out.
    """
    candidates: list[Candidate] = []
    for trace, plans in groups.items():
        cost = full_cost(bundle, trace)
        advance = (lambda cost=cost: progress(cost)) if progress else None
        try:
            values = measure_trace(open_trace(trace), images, repeats_of(list(plans)), advance)
        except KeyboardInterrupt:
            if not candidates:
                raise
            return candidates, True
        measured = TraceValues(values)
        candidates += [found for plan in plans if (found := _candidate(bundle, plan, measured, cost_of))]
    return candidates, False


def _candidate(bundle: Bundle, plan: Plan, measured: TraceValues, cost_of: CostOf) -> Candidate | None:
    try:
        outcome = measured.outcome(plan)
    except CalibrationError:
        return None
    scored, (done, counts) = outcome.scored, np.unique(outcome.repeats, return_counts=True)
    shares = {int(r): float(count) / len(outcome.repeats) for r, count in zip(done, counts, strict=True)}
    return Candidate(
        plan=plan,
        cost=cost_of(plan, shares),
        evaluations=evaluations_of(bundle, plan, shares),
        auroc={name: auroc(scored.ind, found) for name, found in scored.sets.items()},
        mean=mean_auroc_interval(scored),
        scored=scored,
        record=outcome.record,
    )


def evaluations_of(bundle: Bundle, plan: Plan, shares: Mapping[int, float]) -> float:
    """UNet evaluations of an image on average, where these shares end after so many repeats."""
    return full_cost(bundle, plan, 1) * sum(repeats * share for repeats, share in shares.items())


def choose(candidates: Sequence[Candidate], limit: Limit) -> Choice:
    """Choose as the head of this file says. Raises UsageError where nothing is within the limit."""
    within = [found for found in candidates if found.cost <= limit.most]
    if not within:
        least = min(found.cost for found in candidates)
        raise UsageError(f"No plan costs {limit.describe()}; the cheapest that was measured costs {least:.4g}.")
    best, anywhere = strongest(within), strongest(candidates)
    good = [found for found in within if as_good(found, best)]
    cheapest = min(found.cost for found in good)
    chosen = strongest([found for found in good if found.cost <= cheapest * (1 + AS_CHEAP)])
    return Choice(
        chosen=chosen,
        best=best,
        anywhere=anywhere,
        below_best=mean_auroc_difference(best.scored, chosen.scored),
        below_anywhere=mean_auroc_difference(anywhere.scored, chosen.scored),
        front=pareto_front(candidates),
    )


def strongest(candidates: Sequence[Candidate]) -> Candidate:
    """The highest mean AUROC, the cheaper of equals."""
    return max(candidates, key=lambda found: (found.mean.value, -found.cost))


def as_good(candidate: Candidate, best: Candidate) -> bool:
    """Whether the candidate is the best, not told from it by the paired interval, or less than ENOUGH below it."""
    below = mean_auroc_difference(best.scored, candidate.scored)
    return below.low <= 0 or below.value < ENOUGH


def pareto_front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those that no other beats, by ascending cost: nothing as cheap has a higher mean AUROC. One of equals."""
    front: list[Candidate] = []
    for found in sorted(candidates, key=lambda found: (found.cost, -found.mean.value)):
        if not front or found.mean.value > front[-1].mean.value:
            front.append(found)
    return tuple(front)
