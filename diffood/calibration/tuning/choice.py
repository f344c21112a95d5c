"""Chooses among measured plans: the cheapest that is as good as the best, and the front of cost and detection.

Within the limit, the best plan is the one with the highest mean AUROC. It won among hundreds of plans on a few hundred
images, so part of its lead is luck. A plan is as good as the best where the 95 % interval of the paired difference
contains 0, or where the difference is below ENOUGH: a form of the one-standard-error rule (Breiman et al. 1984, sec.
3.4.3). Of the plans as good as the best, the choice is the best among those within a factor of 1 + AS_CHEAP of the
cheapest: a hundredth of the cost, saved by a stage at which few images end, is chance too. The AUROC of the chosen plan
is optimistic, as it was used for the choice; `evaluate` measures it on other images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffood.calibration.metrics.intervals import Difference, mean_auroc_difference
from diffood.calibration.tuning.candidates import PlanCandidate
from diffood.errors import UsageError

ENOUGH = 0.001  # difference of mean AUROC that is not worth a higher cost
AS_CHEAP = 0.05  # relative difference of costs that does not count
TUNED = "tuned"  # the plan's name in the bundle

CostKind = Literal["evaluations", "milliseconds"]


@dataclass(frozen=True)
class CostLimit:
    """The most an image may cost on average.

    Attributes:
        kind: The unit: UNet evaluations, or milliseconds of one image at a time.
        most: In that unit.
    """

    kind: CostKind
    most: float

    def describe(self) -> str:
        """The limit as text."""
        unit = "UNet evaluations per image" if self.kind == "evaluations" else "ms per image"
        return f"at most {self.most:g} {unit}"


@dataclass(frozen=True)
class PlanChoice:
    """The chosen plan and those it was compared with.

    Attributes:
        chosen: The cheapest within the limit that is as good as the best.
        best: The highest mean AUROC within the limit.
        anywhere: The highest mean AUROC at any cost that was measured.
        below_best: AUROC of `best` minus that of `chosen`.
        below_anywhere: AUROC of `anywhere` minus that of `chosen`.
        front: Plans that no other plan beats in both cost and AUROC, by ascending cost.
    """

    chosen: PlanCandidate
    best: PlanCandidate
    anywhere: PlanCandidate
    below_best: Difference
    below_anywhere: Difference
    front: tuple[PlanCandidate, ...]


def choose(candidates: Sequence[PlanCandidate], limit: CostLimit) -> PlanChoice:
    """Choose as the head of this file explains. Raises UsageError where no plan is within the limit."""
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
    """The plan with the highest mean AUROC; of equal ones the cheaper."""
    return max(candidates, key=lambda found: (found.mean.value, -found.cost))


def as_good(candidate: PlanCandidate, best: PlanCandidate) -> bool:
    """Whether the paired interval of the difference to the best contains 0, or the difference is below ENOUGH."""
    below = mean_auroc_difference(best.scored, candidate.scored)
    return below.low <= 0 or below.value < ENOUGH


def pareto_front(candidates: Sequence[PlanCandidate]) -> tuple[PlanCandidate, ...]:
    """Plans that no other beats, by ascending cost: none as cheap has a higher mean AUROC. One of equal ones."""
    front: list[PlanCandidate] = []
    for found in sorted(candidates, key=lambda found: (found.cost, -found.mean.value)):
        if not front or found.mean.value > front[-1].mean.value:
            front.append(found)
    return tuple(front)
