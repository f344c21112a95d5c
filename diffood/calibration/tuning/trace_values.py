"""Measures every image with a trace, and scores it as any plan of the trace would. Keeps numbers, no images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from diffood.calibration.fusing.bank import ComparedImages
from diffood.calibration.fusing.stages import limit_stage, score_in_stages
from diffood.calibration.fusing.witnesses import fit_witnesses
from diffood.calibration.metrics.intervals import ScoredSets
from diffood.calibration.scored_files import IND
from diffood.calibration.tuning.images import FIT, TuningImages
from diffood.errors import CalibrationError
from diffood.runtime.bundle.fusion import Fusion, FusionRecord, pack_bank
from diffood.runtime.detector import Detector
from diffood.runtime.method.fusion import FittedWitness
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.definition import Reference
from diffood.runtime.method.witnesses.registry import (
    WITNESSES,
    Bank,
    Witness,
    measurable,
    measure,
    need_bank,
)

COLUMNS: tuple[Witness, ...] = tuple(WITNESSES)
Values = dict[str, dict[int, Float]]  # by group and number of repeats, [n, W] of COLUMNS; NaN where not measured


def measure_trace(
    detector: Detector, images: TuningImages, repeats: set[int], progress: Callable[[], None] | None = None
) -> "TraceValues":
    """Measure every witness of every image after each of these numbers of repeats, in one pass of the detector's plan.

    FIT comes first: what witnesses know of in-distribution images is fitted on it. `progress` is called after every
    image. Raises CalibrationError for values that are not finite.
    """
    names, bank, values = detector.plan.witnesses, dict[Witness, Reference](), Values()
    for name in (FIT, *(other for other in images.groups if other != FIT)):
        compared = ComparedImages(names if name == FIT else ())
        found: dict[int, list[Float]] = {r: [] for r in repeats}
        for _, evidence in detector.observe(enumerate(images.groups[name].read())):
            sound = compared.add(evidence) and bool(evidence.sound)
            for r, rows in found.items():
                rows.append(measure(COLUMNS, evidence.first(r), bank))
                now = [witness for witness in measurable(names, r) if witness in bank or not need_bank([witness])]
                sound = sound and bool(np.isfinite(rows[-1][_columns(now)]).all())
            if not sound:
                raise CalibrationError(
                    f"The models give values that are not finite on an image of the group {name}, so plans cannot be "
                    "compared. Check the bundle's precision and the models."
                )
            if progress:
                progress()
        values[name] = {r: np.stack(rows) for r, rows in found.items()}
        for witness, fitted in compared.fit().items():
            bank[witness] = fitted.reference
            for r in repeats:
                if witness in measurable(names, r):
                    values[name][r][:, COLUMNS.index(witness)] = fitted.own
    return TraceValues(values, bank)


@dataclass(frozen=True)
class PlanOutcome:
    """The images of a tuning scored by one plan.

    Attributes:
        scored: Scores of IND and the OOD sets.
        repeats: Repeats that each image of IND went through, int64 [n].
        fusion: As fitted; None for a score of one witness.
    """

    scored: ScoredSets
    repeats: npt.NDArray[np.int64]
    fusion: Fusion | None


@dataclass(frozen=True)
class TraceValues:
    """The values of one trace, what its witnesses know of the images of FIT, and the fits that its plans share."""

    values: Values
    bank: Bank
    _fits: dict[tuple[tuple[Witness, ...], str, int], tuple[FittedWitness, ...]] = field(default_factory=dict)

    def outcome(self, plan: Plan) -> PlanOutcome:
        """Score all groups but FIT as the plan would, fitted on FIT. CalibrationError as `fit_witnesses` does."""
        fusion = self._fusion(plan) if plan.fused else None
        scored, repeats = {}, np.empty(0, np.int64)
        for name, by_repeats in self.values.items():
            if name == FIT:
                continue
            final = by_repeats[plan.repeats][:, _columns(plan.witnesses)]
            if fusion is None:
                scored[name], stage = final[:, 0], np.zeros(len(final), np.int64)
            else:
                record = fusion.record
                values = [*(self._of(name, rule.repeats, plan) for rule in record.stages), final]
                scored[name], stage = score_in_stages(record.stages, record.witnesses, record.combine, values)
            if name == IND:
                repeats = np.array([*plan.stages, plan.repeats])[stage]
        return PlanOutcome(ScoredSets(scored.pop(IND), scored), repeats, fusion)

    def _fusion(self, plan: Plan) -> Fusion:
        stages = [
            limit_stage(repeats, self._fit(plan, repeats), self._columns(plan, repeats), plan.combine)
            for repeats in plan.stages
        ]
        n = len(self.values[FIT][plan.repeats])
        witnesses = self._fit(plan, plan.repeats)
        bank = {name: self.bank[name] for name in need_bank(plan.witnesses)} or None
        entry = pack_bank(bank)[0] if bank else None
        record = FusionRecord(combine=plan.combine, witnesses=witnesses, n=n, bank=entry, stages=tuple(stages))
        return Fusion(record, bank)

    def _fit(self, plan: Plan, repeats: int) -> tuple[FittedWitness, ...]:
        """Fitted once for all plans and stages with the same witnesses: finding the powers is slow."""
        key = (measurable(plan.witnesses, repeats), plan.combine, repeats)
        if key not in self._fits:
            self._fits[key] = fit_witnesses(self._columns(plan, repeats), plan.combine)
        return self._fits[key]

    def _columns(self, plan: Plan, repeats: int) -> dict[Witness, Float]:
        return dict(zip(measurable(plan.witnesses, repeats), self._of(FIT, repeats, plan).T, strict=True))

    def _of(self, name: str, repeats: int, plan: Plan) -> Float:
        return np.asarray(self.values[name][repeats][:, _columns(measurable(plan.witnesses, repeats))])


def repeats_of(plans: list[Plan]) -> set[int]:
    """The numbers of repeats at which any of the plans scores an image."""
    return {repeats for plan in plans for repeats in (*plan.stages, plan.repeats)}


def _columns(names: Iterable[Witness]) -> list[int]:
    return [COLUMNS.index(name) for name in names]
