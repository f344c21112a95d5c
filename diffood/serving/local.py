"""What turns files into rows: the `Scorer` protocol, and the scorer of this process."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.certificate import AS_CALIBRATED, ThresholdChoice, thresholds_of
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS, DecodedImage, ImageLimits
from diffood.runtime.inputs.decoding import IN_THREADS, DecodeOptions
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.item_pass import ItemResult
from diffood.runtime.pipeline import score_turns
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
        choice: A threshold in place of the calibrated ones.
    """

    detector: Detector
    calibration: Calibration
    limits: ImageLimits = DEFAULT_LIMITS
    decoding: DecodeOptions = IN_THREADS
    pictures: bool = False
    choice: ThresholdChoice = AS_CALIBRATED

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
        classes = len(self.detector.bundle.manifest.class_names)
        rule = DecisionRule.of(self.calibration, thresholds_of(self.calibration, self.choice, classes))
        for outcomes in score_turns(self.detector, items, self.limits, decoding=self.decoding):
            for outcome, row in zip(outcomes, make_rows(outcomes, rule, self.detector), strict=True):
                picture = draw_denoised(outcome.result) if self.pictures and row.is_ood else None
                yield ScoredFile(row, outcome.source, picture)


def make_rows(outcomes: Sequence[ItemResult[ImageScore]], rule: DecisionRule, detector: Detector) -> list[Row]:
    """The rows of files: their scores, judged by the calibration's rule, or why they were refused."""
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    scores = np.array([result.checked for result in results], np.float64)
    decisions = rule.decide(scores, np.array([result.predicted for result in results], np.int64))
    decided = zip(decisions.p_values.tolist(), decisions.thresholds.tolist(), decisions.is_ood.tolist(), strict=True)
    names = detector.bundle.manifest.class_names
    return [_row(outcome.source, outcome.loaded, outcome.result, decided, names) for outcome in outcomes]


def _row(
    source: Item,
    loaded: DecodedImage,
    result: ImageScore | None,
    decided: Iterator[tuple[float, float, bool]],
    names: Sequence[str],
) -> Row:
    """The row of one file, with what is decided next unless it was refused."""
    if result is None:
        return Row(source.id, loaded.sha256, "rejected", error=loaded.error)
    p_value, threshold, is_ood = next(decided)
    finite = math.isfinite(result.checked)
    return Row(
        id=source.id,
        sha256=loaded.sha256,
        status="ok" if finite else "invalid",
        score=result.checked,
        p_value=p_value,
        threshold=threshold,
        is_ood=is_ood,
        predicted_class=result.predicted,
        class_name=names[result.predicted],
        confidence=result.confidence,
        stage=result.stage,
        unet_evaluations=result.evaluations,
        note=loaded.note,
        error="" if finite else NOT_FINITE,
    )
