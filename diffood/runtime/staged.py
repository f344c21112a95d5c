"""The pass over a batch of images: one engine call per stage, judged as a whole; those that are clear go no further.

Stage 1 takes all images, makes scores of its witnesses, and some images end there; stage 2 takes the others, closed up
into fewer calls; the last stage ends those that no other did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from diffood.runtime.assembly.recipe import Stage
from diffood.runtime.assembly.stage import DENOISED, FEATURES, IMAGE, LOGITS
from diffood.runtime.method.scoring import Array, Float

StageTensors = Mapping[str, npt.NDArray[Any]]


class StageEngine(Protocol):
    """What runs a plan's stages, on any number of rows."""

    def run(self, stage: int, feeds: StageTensors) -> dict[str, Array]:
        """Outputs [n, ...] by name of a stage for inputs [n, ...] by name."""


@dataclass(frozen=True)
class StageEvidence:
    """What the stages so far left of n images.

    Attributes:
        logits: float32 [n, K].
        features: float32 [n, D].
        distances: What each witness of denoised images says, by name: float32 [n, R, T] by repeat and start time.
        denoised: float32 [n, R, T, C, H, W] in [-1, 1]; None where pictures are not kept, or nothing was denoised.
    """

    logits: Array
    features: Array
    distances: Mapping[str, Array] = field(default_factory=dict)
    denoised: Array | None = None

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, rows: npt.NDArray[np.int64]) -> "StageEvidence":
        """That of some images."""
        return StageEvidence(
            self.logits[rows],
            self.features[rows],
            {name: value[rows] for name, value in self.distances.items()},
            None if self.denoised is None else self.denoised[rows],
        )

    def joined(self, found: Mapping[str, Array], *, pictures: bool) -> "StageEvidence":
        """With what another stage found for the same images."""
        new = {name: value for name, value in found.items() if name not in (LOGITS, FEATURES, DENOISED)}
        distances = {
            name: np.concatenate([self.distances[name], value], axis=1) if name in self.distances else value
            for name, value in new.items()
        }
        denoised = found.get(DENOISED) if pictures else None
        if denoised is not None and self.denoised is not None:
            denoised = np.concatenate([self.denoised, denoised], axis=1)
        return StageEvidence(self.logits, self.features, distances, denoised)


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

    def __call__(self, stage: Stage, evidence: StageEvidence) -> Judgement:
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
    evidence: StageEvidence
    judgement: Judgement


def run_stages(
    engine: StageEngine,
    stages: Sequence[Stage],
    pixels: npt.NDArray[np.uint8],
    judge: Judge,
    *,
    pictures: bool = False,
) -> list[StagePart]:
    """Take images uint8 [N, C, H, W] through the stages; a part for each stage that ended some.

    pictures: whether to keep denoised images in the evidence.
    """
    rows, evidence = np.arange(len(pixels)), None
    parts: list[StagePart] = []
    for stage in stages:
        feeds: dict[str, npt.NDArray[Any]] = {IMAGE: pixels[rows]}
        if evidence is not None:
            feeds |= {LOGITS: evidence.logits, FEATURES: evidence.features}
        found = engine.run(stage.number, feeds)
        begun = StageEvidence(found[LOGITS], found[FEATURES]) if evidence is None else evidence
        evidence = begun.joined(found, pictures=pictures)
        judgement = judge(stage, evidence)
        ended = judgement.ends if stage is not stages[-1] else np.ones(len(rows), bool)
        if ended.all():
            return [*parts, StagePart(rows, stage, evidence, judgement)]
        here, on = np.flatnonzero(ended), np.flatnonzero(~ended)
        if len(here):
            part = Judgement(judgement.witnesses[here], judgement.scores[here], judgement.ends[here])
            parts.append(StagePart(rows[here], stage, evidence.take(here), part))
        rows, evidence = rows[on], evidence.take(on)
    return parts
