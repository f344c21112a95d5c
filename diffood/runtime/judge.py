"""Makes scores of what a stage left of a batch of images, by the fusion that a calibration fitted."""

from dataclasses import dataclass

import numpy as np

from diffood.runtime.assembly.recipe import Stage
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.method.fusion import fuse
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.knn import knn
from diffood.runtime.method.witnesses.registry import WITNESSES
from diffood.runtime.staged import Judgement, StageEvidence


@dataclass(frozen=True)
class FusionJudge:
    """Scores images after a stage, and ends those whose score is clear.

    Attributes:
        plan: The plan.
        fusion: How witnesses are combined; None for a plan of one witness.
    """

    plan: Plan
    fusion: Fusion | None

    def __call__(self, stage: Stage, evidence: StageEvidence) -> Judgement:
        """The judgement of every image."""
        values = measure_witnesses(self.plan, evidence, self.fusion)
        never = np.zeros(len(evidence), bool)
        if self.fusion is None:
            return Judgement(values, values[:, 0], never)
        record = self.fusion.record
        if stage.number == len(record.stages):
            return Judgement(values, record.score(values), never)
        rule = record.stages[stage.number]
        columns = [record.names.index(witness.name) for witness in rule.witnesses]
        scores = fuse(rule.witnesses, record.combine, values[:, columns])
        low, high = (-np.inf if rule.low is None else rule.low), (np.inf if rule.high is None else rule.high)
        return Judgement(values, scores, (scores <= low) | (scores > high))  # false for NaN: never clear


def measure_witnesses(plan: Plan, evidence: StageEvidence, fusion: Fusion | None) -> Float:
    """Values float64 [n, W] in plan order; NaN for those that need a denoised image where there is none."""
    values = np.full((len(evidence), len(plan.witnesses)), np.nan)
    for column, name in enumerate(plan.witnesses):
        definition = WITNESSES[name]
        if definition.of_logits:
            values[:, column] = definition.of_logits(evidence.logits)
        elif definition.of_denoised and name in evidence.distances:
            mean = evidence.distances[name].mean(axis=(1, 2), dtype=np.float64)
            values[:, column] = np.sqrt(mean) if definition.reduce == "root" else mean
        elif definition.measure_in_bank and fusion and fusion.bank is not None:
            # row by row: a product of matrices rounds by the place of a row
            values[:, column] = [knn(row, fusion.bank) for row in evidence.features]
    return values
