"""Scores as a histogram draws them, how far its axis reaches, and where ticks lie on it. Draws nothing."""

from collections.abc import Callable, Iterable

import numpy as np
from matplotlib.ticker import MaxNLocator

from diffood.calibration.checked import FloatArray

FAR = 4  # an axis that reaches so many times as far as the threshold is drawn together above it
_SPAN_QUANTILE = 0.999  # a few far outliers must not squeeze the rest
_TICK_DISTANCE = 0.09  # of the axis, between two ticks

Place = Callable[[FloatArray | float], FloatArray]


def drawn_scores(scores: FloatArray, thresholds: FloatArray, *, per_class: bool) -> FloatArray:
    """Scores [N] as they are drawn; per_class: above their own thresholds [N], as no one line divides them."""
    return scores - thresholds if per_class else scores


def drawn_threshold(threshold: float, *, per_class: bool) -> float:
    """Where the threshold lies among the scores as they are drawn."""
    return 0.0 if per_class else threshold


def score_span(scores: Iterable[FloatArray], threshold: float) -> tuple[float, float]:
    """The range of scores that all histograms of a report share; far outliers are left outside."""
    every = np.concatenate([*scores, [threshold]])
    low, high = float(every.min()), max(float(np.quantile(every, _SPAN_QUANTILE)), threshold)
    margin = 0.02 * (high - low) or 1.0
    return low - min(margin, 0.1 * (threshold - low) or margin), high + margin


def score_axis(threshold: float, span: tuple[float, float]) -> Place:
    """The place of scores on the axis: straight, or as asinh above the low end where scores reach far up."""
    low, high = span
    width = threshold - low
    if not 0 < FAR * width < high - low:
        return lambda scores: np.asarray(scores, np.float64)
    return lambda scores: np.arcsinh((np.asarray(scores, np.float64) - low) / width)


def score_ticks(place: Place, span: tuple[float, float]) -> list[float]:
    """Round numbers on the axis, coarse ones first, finer ones towards the low end where there is room."""
    low, high = span
    apart = _TICK_DISTANCE * float(place(high) - place(low))
    ticks: list[float] = []
    for part in (1, 0.2, 0.05):
        for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, low + part * (high - low)):
            inside = low <= tick <= high
            if inside and all(abs(float(place(tick) - place(other))) >= apart for other in ticks):
                ticks.append(float(tick))
    return ticks
