"""Measures plans: what each costs and detects on the tuning images. Chooses none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffood.calibration.metrics.intervals import Interval, ScoredSets, mean_auroc_interval
from diffood.calibration.metrics.rates import auroc
from diffood.calibration.tuning.images import TuningImages
from diffood.calibration.tuning.trace_values import TraceValues, measure_trace, repeats_of
from diffood.calibration.tuning.traces import full_cost
from diffood.errors import CalibrationError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import Plan


@dataclass(frozen=True)
class PlanCandidate:
    """A measured plan.

    Attributes:
        plan: What was measured.
        cost: Of an InD image on average, in the unit of the limit: UNet evaluations or milliseconds.
        evaluations: The same in UNet evaluations.
        auroc: By OOD set.
        mean: Mean AUROC, each set with the same weight, with its interval.
        scored: All scores.
        fusion: As fitted; None for a score of one witness.
    """

    plan: Plan
    cost: float
    evaluations: float
    auroc: dict[str, float]
    mean: Interval
    scored: ScoredSets
    fusion: Fusion | None

    @property
    def worst(self) -> str:
        """Name of the set with the lowest AUROC."""
        return min(self.auroc, key=self.auroc.__getitem__)

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, without the scores."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "cost": self.cost,
            "unet_evaluations": self.evaluations,
            "auroc": self.auroc,
            "mean_auroc": asdict(self.mean),
        }


# (plan, share of images that end after each number of repeats) -> cost of an image, in the unit of the limit
CostOf = Callable[[Plan, Mapping[int, float]], float]


def measure_candidates(
    bundle: Bundle,
    groups: Mapping[Plan, Sequence[Plan]],
    images: TuningImages,
    open_trace: Callable[[Plan], Detector],
    cost_of: CostOf,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[PlanCandidate], bool]:
    """Measure all plans, by trace in the order given.

    A plan whose fusion cannot be fitted (a witness does not vary) is left out.

    Args:
        bundle: Whose plans they are.
        groups: Plans by trace.
        images: To measure on.
        open_trace: Opens a detector with a trace as its plan.
        cost_of: Cost of a plan.
        progress: Called with the UNet evaluations done since the last call.

    Returns:
        The measured plans, and whether Ctrl-C ended the measuring early.
    """
    candidates: list[PlanCandidate] = []
    for trace, plans in groups.items():
        cost = full_cost(bundle, trace)
        advance = (lambda cost=cost: progress(cost)) if progress else None
        try:
            measured = measure_trace(open_trace(trace), images, repeats_of(list(plans)), advance)
        except KeyboardInterrupt:
            if not candidates:
                raise
            return candidates, True
        candidates += [found for plan in plans if (found := _candidate(bundle, plan, measured, cost_of))]
    return candidates, False


def _candidate(bundle: Bundle, plan: Plan, measured: TraceValues, cost_of: CostOf) -> PlanCandidate | None:
    try:
        outcome = measured.outcome(plan)
    except CalibrationError:
        return None
    scored, (done, counts) = outcome.scored, np.unique(outcome.repeats, return_counts=True)
    shares = {int(r): float(count) / len(outcome.repeats) for r, count in zip(done, counts, strict=True)}
    return PlanCandidate(
        plan=plan,
        cost=cost_of(plan, shares),
        evaluations=evaluations_of(bundle, plan, shares),
        auroc={name: auroc(scored.ind, found) for name, found in scored.sets.items()},
        mean=mean_auroc_interval(scored),
        scored=scored,
        fusion=outcome.fusion,
    )


def evaluations_of(bundle: Bundle, plan: Plan, shares: Mapping[int, float]) -> float:
    """UNet evaluations of an image on average, where `shares` of the images end after each number of repeats."""
    return full_cost(bundle, plan, 1) * sum(repeats * share for repeats, share in shares.items())
