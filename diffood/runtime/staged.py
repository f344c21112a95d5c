"""The pass over a batch of images: one engine call per stage, judged as a whole; those that are clear go no further.

Stage 1 takes all images, makes scores of its witnesses, and some images end there; stage 2 takes the others, closed up
into fewer calls; the last stage ends those that no other did.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from diffood.runtime.assembly.recipe import Stage
from diffood.runtime.assembly.stage import DENOISED, IMAGE, LOGITS, SOUND
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.definition import FEATURES, INSIDE, SNAPSHOT, Evidence
from diffood.runtime.method.witnesses.registry import WITNESSES
from diffood.runtime.sessions import StageTensors


class StageEngine(Protocol):
    """What runs a plan's stages, on any number of rows."""

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        """Outputs [n, ...] by name of a stage for inputs [n, ...] by name."""


@dataclass(frozen=True)
class Judgement:
    """What is made of n images after a stage.

    Attributes:
        witnesses: Raw values float64 [n, W] in plan order; NaN for those that were not measured.
        scores: float64 [n].
        ends: Whether scoring stops here, bool [n].
    """

    witnesses: Float
    scores: Float
    ends: npt.NDArray[np.bool_]


class Judge(Protocol):
    """Judges images after a stage; the last one ends all."""

    def __call__(self, stage: Stage, evidence: Evidence) -> Judgement:
        """The judgement of every image."""


@dataclass(frozen=True)
class StagePart:
    """Images that ended at one stage.

    Attributes:
        rows: Their places in the batch, int64 [n].
        stage: The stage.
        evidence: What they were judged on.
        judgement: Of these images.
    """

    rows: npt.NDArray[np.int64]
    stage: Stage
    evidence: Evidence
    judgement: Judgement


def run_stages(
    engine: StageEngine, stages: Sequence[Stage], pixels: npt.NDArray[np.uint8], judge: Judge
) -> list[StagePart]:
    """Take images uint8 [N, C, H, W] through the stages; a part for each stage that ended some."""
    rows, evidence = np.arange(len(pixels)), None
    parts: list[StagePart] = []
    for stage in stages:
        evidence = _run_stage(engine, stage, pixels[rows], evidence)
        judgement = judge(stage, evidence)
        ended = judgement.ends if stage is not stages[-1] else np.ones(len(rows), bool)
        if ended.all():
            return [*parts, StagePart(rows, stage, evidence, judgement)]
        here, on = np.flatnonzero(ended), np.flatnonzero(~ended)
        if len(here):
            part = Judgement(judgement.witnesses[here], judgement.scores[here], judgement.ends[here])
            parts.append(StagePart(rows[here], stage, evidence[here], part))
        rows, evidence = rows[on], evidence[on]
    return parts


def _run_stage(engine: StageEngine, stage: Stage, pixels: npt.NDArray[np.uint8], before: Evidence | None) -> Evidence:
    """The evidence of images after a stage, with that of the stages before."""
    if before is None:
        found = engine.run(stage.number, {IMAGE: pixels})
        logits, features = found[LOGITS], found[FEATURES]
        sound = np.asarray(np.isfinite(logits).all(axis=1) & np.isfinite(features).all(axis=1))
        before = Evidence(pixels, logits, features, sound)
    else:
        found = engine.run(stage.number, {IMAGE: pixels, LOGITS: before.logits, FEATURES: before.features})
    inner = {name: found[name] for name in (INSIDE, SNAPSHOT) if name in found}
    before = replace(before, inner={**before.inner, **inner})
    if not stage.repeats:
        return before
    distances = {name: value for name, value in found.items() if name in WITNESSES and WITNESSES[name].of_denoised}
    sound = before.sound & (found[SOUND] > 0).all(axis=(1, 2))
    if before.repeats:
        distances = {name: np.concatenate([before.distances[name], new], axis=1) for name, new in distances.items()}
    denoised = found.get(DENOISED, before.denoised)
    return replace(before, sound=sound, repeats=stage.last, distances=distances, denoised=denoised)
