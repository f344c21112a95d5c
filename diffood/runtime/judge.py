"""Makes scores of what a stage left of a batch of images, by the fusion that a calibration fitted."""

from dataclasses import dataclass

import numpy as np

from diffood.runtime.assembly.recipe import Stage
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.method.fusion import fuse
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.method.witnesses.registry import measure
from diffood.runtime.staged import Judgement


@dataclass(frozen=True)
class FusionJudge:
    """Scores images after a stage, and ends those whose score is clear.

    Attributes:
        plan: The plan.
        fusion: How witnesses are combined; None for a plan of one witness.
    """

    plan: Plan
    fusion: Fusion | None

    def __call__(self, stage: Stage, evidence: Evidence) -> Judgement:
        """The judgement of every image."""
        values = measure(self.plan.witnesses, evidence, self.fusion.bank if self.fusion else None)
        never = np.zeros(len(evidence), bool)
        if self.fusion is None:
            return Judgement(values, values[:, 0], never)
        record = self.fusion.record
        if stage.number == len(record.stages):
            return Judgement(values, record.score(values), never)
        rule = record.stages[stage.number]
        columns = [record.names.index(witness.name) for witness in rule.witnesses]
        scores = fuse(rule.witnesses, record.combine, values[:, columns])
        return Judgement(values, scores, rule.ends(scores))


def never_ends(stage: Stage, evidence: Evidence) -> Judgement:
    """A judge that scores nothing and lets every image go on."""
    none = np.zeros(len(evidence))
    return Judgement(none[:, None], none, np.zeros(len(evidence), bool))
