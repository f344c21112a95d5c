"""Finds where the paper's score detects less than chance on the images given, and leaves it out of the choice.

A witness below chance takes OOD images for in-distribution ones. Fusions are fitted on in-distribution images alone and
cannot know; these images tell.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffood.calibration.tuning.candidates import PlanCandidate
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.witnesses.jump import JUMP

CHANCE = 0.5  # the AUROC of guessing


@dataclass(frozen=True)
class BelowChance:
    """Ways to denoise in which the paper's score alone is below chance, beyond chance.

    Attributes:
        best: In each of them, the plan of that score alone with the highest mean AUROC.
        ways: Number of ways to denoise in which that score alone was measured.
        left_out: Plans that use it in one of them.
    """

    best: tuple[PlanCandidate, ...]
    ways: int
    left_out: frozenset[Plan]

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, without the scores."""
        return {
            "ways": len(self.best),
            "of_ways": self.ways,
            "mean_auroc": [asdict(found.mean) for found in self.best],
            "plans_left_out": len(self.left_out),
        }


def find_below_chance(candidates: Sequence[PlanCandidate]) -> BelowChance:
    """Where the 95 % interval of the mean AUROC of the paper's score alone lies below CHANCE, whatever the repeats."""
    alone: dict[Plan, PlanCandidate] = {}
    for found in candidates:
        if found.plan.witnesses == (JUMP.name,):
            other = alone.setdefault(_way(found.plan), found)
            if found.mean.value > other.mean.value:
                alone[_way(found.plan)] = found
    weak = {trace: found for trace, found in alone.items() if found.mean.high < CHANCE}
    plans = (found.plan for found in candidates)
    left_out = frozenset(plan for plan in plans if JUMP.name in plan.witnesses and _way(plan) in weak)
    return BelowChance(tuple(weak.values()), len(alone), left_out)


def _way(plan: Plan) -> Plan:
    """What plans that denoise alike have in common."""
    return plan.changed({"repeats": 1, "witnesses": (JUMP.name,), "stages": (), "combine": "tail"})
