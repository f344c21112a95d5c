"""The axis of scores that all histograms of an evaluation share. Draws nothing."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from diffood.calibration.checked import FloatArray

FAR = 4  # an axis that reaches this many times as far as the threshold is compressed above it
_SPAN_QUANTILE = 0.999  # a few far outliers must not squeeze the rest
_TICK_DISTANCE = 0.09  # of the axis, between two ticks


@dataclass(frozen=True)
class ScoreAxis:
    """Where scores lie on an axis: linear, or as asinh above its low end where scores reach far up.

    Attributes:
        threshold: Score above which an image is flagged.
        low: Lowest score drawn.
        high: Highest score drawn; a few far outliers lie outside.
    """

    threshold: float
    low: float
    high: float

    @classmethod
    def of(cls, sets: Iterable[FloatArray], threshold: float) -> "ScoreAxis":
        """The axis that suits all these sets of scores, each float64 [N] and finite."""
        every = np.concatenate([*sets, [threshold]])
        low, high = float(every.min()), max(float(np.quantile(every, _SPAN_QUANTILE)), threshold)
        margin = 0.02 * (high - low) or 1.0
        return cls(threshold, low - min(margin, 0.1 * (threshold - low) or margin), high + margin)

    def place(self, scores: FloatArray | float) -> FloatArray:
        """Positions on the axis, of the shape of the scores."""
        straight, width = np.asarray(scores, np.float64), self.threshold - self.low
        return np.arcsinh((straight - self.low) / width) if 0 < FAR * width < self.high - self.low else straight

    @property
    def ends(self) -> tuple[float, float]:
        """Positions of the lowest and of the highest score drawn."""
        return float(self.place(self.low)), float(self.place(self.high))

    @property
    def ticks(self) -> list[float]:
        """Round scores, coarse ones first, finer ones towards the low end where there is room."""
        low, high = self.ends
        apart = _TICK_DISTANCE * (high - low)
        ticks: list[float] = []
        for part in (1, 0.2, 0.05):
            for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(
                self.low, self.low + part * (self.high - self.low)
            ):
                inside = self.low <= tick <= self.high
                if inside and all(abs(float(self.place(tick) - self.place(other))) >= apart for other in ticks):
                    ticks.append(float(tick))
        return ticks


def drawn_scores(scores: FloatArray, thresholds: FloatArray, *, per_class: bool) -> FloatArray:
    """Scores [N] as a histogram shows them.

    With thresholds per class no single line divides the scores, so each is shown relative to its own threshold.

    Args:
        scores: float64 [N].
        thresholds: Threshold of each score, float64 [N].
        per_class: Whether classes have thresholds of their own.
    """
    return scores - thresholds if per_class else scores


def drawn_threshold(threshold: float, *, per_class: bool) -> float:
    """The threshold among the scores that `drawn_scores` returns."""
    return 0.0 if per_class else threshold
