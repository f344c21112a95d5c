"""Histograms of scores with the threshold: one panel for each set in a file, or one picture for each set in a page."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffood.calibration.checked import FloatArray
from diffood.report.charts.score_axis import ScoreAxis
from diffood.report.charts.style import PAGE_WIDTH, PALETTE, WIDTH, Picture, Theme, chart_picture, save_chart

BINS = 60


def plot_histogram(
    panel: Axes, axis: ScoreAxis, scores: FloatArray, theme: Theme, *, colour: str, outline: FloatArray | None = None
) -> None:
    """Draw scores [N] as bars, the threshold as a dashed line, and the flagged side shaded.

    Each set is drawn to its own height; scores outside the axis are counted in the bar at its end.

    Args:
        panel: Where to draw.
        axis: Shared by all histograms that are compared.
        scores: float64 [N].
        theme: Colours.
        colour: Of the bars.
        outline: Scores of the in-distribution set, drawn as a line over the bars.
    """
    low, high = axis.ends
    edges = np.linspace(low, high, BINS + 1)

    def heights(values: FloatArray) -> FloatArray:
        counts = np.histogram(np.clip(axis.place(values), low, high), edges)[0]
        return np.asarray(counts / counts.max())

    panel.stairs(heights(scores), edges, fill=True, color=colour, alpha=0.85)
    if outline is not None:
        panel.stairs(heights(outline), edges, color=theme.ind, lw=1.3)
    threshold = float(axis.place(axis.threshold))
    panel.axvspan(threshold, high, color=theme.line, alpha=0.08, lw=0)
    panel.axvline(threshold, color=theme.line, lw=1.2, ls="--")
    panel.set(xlim=(low, high), ylim=(0, 1.05), yticks=[])
    ticks = axis.ticks
    panel.set_xticks([float(axis.place(tick)) for tick in ticks], [f"{tick:g}" for tick in ticks])
    panel.spines["left"].set_visible(False)


def draw_histograms(sets: Mapping[str, FloatArray], threshold: float, label: str, path: Path) -> None:
    """Write one panel for each set on a shared axis.

    Args:
        sets: Scores float64 [N] by name, all finite; the in-distribution set is named "ind".
        threshold: Score above which an image is flagged.
        label: Of the axis.
        path: PNG file.
    """
    axis = ScoreAxis.of(sets.values(), threshold)

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(len(sets), 1, sharex=True, squeeze=False)[:, 0]
        for index, (panel, (name, scores)) in enumerate(zip(panels, sets.items(), strict=True)):
            plot_histogram(panel, axis, scores, theme, colour=PALETTE[index % len(PALETTE)])
            title = "in-distribution test" if name == "ind" else name
            panel.set_title(f"{title}: {np.mean(scores > threshold):.1%} of {len(scores)} flagged")
        panels[0].text(float(axis.place(threshold)), 1.05, " threshold", va="top", fontsize=8)
        panels[-1].set_xlabel(label)

    save_chart(draw, (WIDTH, 0.6 + 0.95 * len(sets)), path)


def histogram_picture(axis: ScoreAxis, ind: FloatArray, ood: FloatArray | None, alt: str) -> Picture:
    """Draw the in-distribution scores alone, or as an outline over those of an OOD set."""

    def draw(figure: Figure, theme: Theme) -> None:
        panel = figure.subplots()
        if ood is None:
            plot_histogram(panel, axis, ind, theme, colour=theme.ind)
        else:
            plot_histogram(panel, axis, ood, theme, colour=theme.ood, outline=ind)
        panel.set_xlabel("score")

    return chart_picture(draw, (PAGE_WIDTH, 1.5), alt)
