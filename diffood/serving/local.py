"""What turns files into rows: the `Scorer` protocol, and the scorer of this process."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.decoding import IN_THREADS, DecodeOptions
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.item_pass import ItemResult
from diffood.runtime.pipeline import score_files
from diffood.runtime.results import NOT_FINITE, ImageScore
from diffood.serving.rows.row import Row
from diffood.serving.watching.flagged import draw_denoised


@dataclass(frozen=True)
class ScoredFile:
    """A row and the item it is about.

    Attributes:
        picture: The denoised image as PNG, for a flagged image if it was asked for.
    """

    row: Row
    item: Item
    picture: bytes | None = None


class Scorer(Protocol):
    """Turns files into rows, in this process or on other machines."""

    @property
    def precision(self) -> str:
        """Of the engine."""

    @property
    def backend(self) -> str:
        """Of the engine."""

    @property
    def batch(self) -> int:
        """Images that the engine works on at once; halved whenever it runs out of memory."""

    def rows(self, items: Iterable[Item | Pause]) -> Iterator[ScoredFile]:
        """One row per file, in order. At a pause all rows before it are given first."""


@dataclass(frozen=True)
class LocalScorer:
    """Scores with a detector of this process.

    Attributes:
        pictures: Whether to draw the denoised picture of each flagged image.
    """

    detector: Detector
    calibration: Calibration
    limits: ImageLimits = DEFAULT_LIMITS
    decoding: DecodeOptions = IN_THREADS
    pictures: bool = False

    @property
    def precision(self) -> str:
        """See Scorer.precision."""
        return self.detector.session.precision

    @property
    def backend(self) -> str:
        """See Scorer.backend."""
        return self.detector.session.backend

    @property
    def batch(self) -> int:
        """See Scorer.batch."""
        return self.detector.session.batch

    def rows(self, items: Iterable[Item | Pause]) -> Iterator[ScoredFile]:
        """See Scorer.rows."""
        rule = DecisionRule.of(self.calibration)
        for outcome in score_files(self.detector, items, self.limits, decoding=self.decoding):
            row = make_row(outcome, rule, self.detector)
            picture = draw_denoised(outcome.result) if self.pictures and row.is_ood else None
            yield ScoredFile(row, outcome.source, picture)


def make_row(outcome: ItemResult[ImageScore], rule: DecisionRule, detector: Detector) -> Row:
    """The row of one file: its score, judged by the calibration's rule, or why it was refused."""
    source, loaded, result = outcome.source, outcome.loaded, outcome.result
    if result is None:
        return Row(source.id, loaded.sha256, "rejected", error=loaded.error)
    score, predicted = result.checked, int(result.evidence.predicted)
    finite = bool(np.isfinite(score))
    decisions = rule.decide(np.array([score]), np.array([predicted]))
    return Row(
        id=source.id,
        sha256=loaded.sha256,
        status="ok" if finite else "invalid",
        score=score,
        p_value=float(decisions.p_values[0]),
        threshold=float(decisions.thresholds[0]),
        is_ood=bool(decisions.is_ood[0]),
        predicted_class=predicted,
        class_name=detector.bundle.manifest.class_names[predicted],
        confidence=float(result.evidence.confidence),
        stage=result.stage,
        unet_evaluations=result.evaluations,
        note=loaded.note,
        error="" if finite else NOT_FINITE,
    )
