"""The false-alarm rate of every threshold: what the calibration images show, and the bound that holds for all."""

import numpy as np
from matplotlib.figure import Figure

from diffood.calibration.checked import FloatArray
from diffood.report.charts.style import PAGE_WIDTH, Picture, Theme, chart_picture
from diffood.runtime.method.simultaneous import Band

LOWEST = 1e-4  # rate drawn; a logarithmic axis has no 0


def band_picture(scores: FloatArray, band: Band, threshold: float, alt: str) -> Picture:
    """Draw the rates of thresholds at each calibration score.

    Args:
        scores: Of the calibration images, ascending, float64 [n].
        band: Their bounds.
        threshold: The calibrated one.
        alt: What the picture shows, in words.
    """
    above = len(scores) - np.searchsorted(scores, scores, "right")
    bounds, seen = np.array([band.bound(int(m)) for m in above]), np.maximum(above / len(scores), LOWEST)

    def draw(figure: Figure, theme: Theme) -> None:
        panel = figure.subplots()
        panel.fill_between(scores, seen, bounds, step="post", color=theme.ind, alpha=0.25, lw=0)
        panel.step(scores, bounds, where="post", color=theme.ind, lw=1.6, label="bound, every threshold at once")
        panel.step(scores, seen, where="post", color=theme.dots, lw=1.2, label="calibration images")
        panel.axvline(threshold, color=theme.line, lw=1.2, ls="--")
        panel.set(yscale="log", ylim=(max(LOWEST, 0.5 / len(scores)), 1), xlabel="threshold", ylabel="false alarms")
        ticks = [rate for rate in (0.001, 0.01, 0.05, 0.2, 1) if rate >= 0.5 / len(scores)]
        panel.set_yticks(ticks, [f"{rate:.1%}" if rate < 0.01 else f"{rate:.0%}" for rate in ticks])
        panel.minorticks_off()
        panel.legend(loc="lower left")

    return chart_picture(draw, (PAGE_WIDTH, 2.2), alt)
