"""Chooses among measured plans: the cheapest that is as good as the best, and the front of cost and detection.

**Choice.** Within the limit, the best plan is the one with the highest mean AUROC. It is the winner among hundreds on a
few hundred images, so part of its lead is luck. A plan is as good where its paired difference to it cannot be told from
0, or is below ENOUGH: a form of the one-standard-error rule (Breiman et al. 1984, sec. 3.4.3), with the difference's
95 % interval. Taken is the best of those as good that cost no more than the cheapest of them, give or take AS_CHEAP: a
hundredth of the cost, saved by a stage that few images end at, is chance too. The AUROC of what was chosen remains one
that was used to choose it: `evaluate` on other images says what it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffood.calibration.metrics.intervals import Difference, mean_auroc_difference
from diffood.calibration.tuning.candidates import PlanCandidate
from diffood.errors import UsageError

ENOUGH = 0.001  # of mean AUROC: a tenth of a point less is not worth paying for
AS_CHEAP = 0.05  # of a cost
TUNED = "tuned"  # the plan's name in the bundle

CostKind = Literal["evaluations", "milliseconds"]


@dataclass(frozen=True)
class CostLimit:
    """The most an image may cost on average."""

    kind: CostKind
    most: float

    def describe(self) -> str:
        """In words."""
        unit = "UNet evaluations an image" if self.kind == "evaluations" else "ms an image"
        return f"at most {self.most:g} {unit}"


@dataclass(frozen=True)
class PlanChoice:
    """The plan taken, and what it was taken from. below_*: AUROC of the best, within the limit or at all, less its own.

    best, anywhere: the highest mean AUROC within the limit, and at any cost that was measured.
    """

    chosen: PlanCandidate
    best: PlanCandidate
    anywhere: PlanCandidate
    below_best: Difference
    below_anywhere: Difference
    front: tuple[PlanCandidate, ...]


def choose(candidates: Sequence[PlanCandidate], limit: CostLimit) -> PlanChoice:
    """Choose as the head of this file says. Raises UsageError where nothing is within the limit."""
    within = [found for found in candidates if found.cost <= limit.most]
    if not within:
        least = min(found.cost for found in candidates)
        raise UsageError(f"No plan costs {limit.describe()}; the cheapest that was measured costs {least:.4g}.")
    best, anywhere = strongest(within), strongest(candidates)
    good = [found for found in within if as_good(found, best)]
    cheapest = min(found.cost for found in good)
    chosen = strongest([found for found in good if found.cost <= cheapest * (1 + AS_CHEAP)])
    return PlanChoice(
        chosen=chosen,
        best=best,
        anywhere=anywhere,
        below_best=mean_auroc_difference(best.scored, chosen.scored),
        below_anywhere=mean_auroc_difference(anywhere.scored, chosen.scored),
        front=pareto_front(candidates),
    )


def strongest(candidates: Sequence[PlanCandidate]) -> PlanCandidate:
    """The highest mean AUROC, the cheaper of equals."""
    return max(candidates, key=lambda found: (found.mean.value, -found.cost))


def as_good(candidate: PlanCandidate, best: PlanCandidate) -> bool:
    """Whether the candidate is the best, not told from it by the paired interval, or less than ENOUGH below it."""
    below = mean_auroc_difference(best.scored, candidate.scored)
    return below.low <= 0 or below.value < ENOUGH


def pareto_front(candidates: Sequence[PlanCandidate]) -> tuple[PlanCandidate, ...]:
    """Those that no other beats, by ascending cost: nothing as cheap has a higher mean AUROC. One of equals."""
    front: list[PlanCandidate] = []
    for found in sorted(candidates, key=lambda found: (found.cost, -found.mean.value)):
        if not front or found.mean.value > front[-1].mean.value:
            front.append(found)
    return tuple(front)
