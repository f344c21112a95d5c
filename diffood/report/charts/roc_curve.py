"""Detection of an OOD set against false alarms, for every threshold."""

import numpy as np
from matplotlib.figure import Figure

from diffood.calibration.checked import FloatArray
from diffood.report.charts.style import Picture, Theme, chart_picture

TICKS = (0, 0.01, 0.05, 0.2, 0.5, 1)  # false alarm rates


def roc_picture(ind: FloatArray, ood: FloatArray, threshold: float, alt: str) -> Picture:
    """Draw the ROC curve, and the point of the calibrated threshold.

    The axis of false alarms is the square root of the rate: thresholds are chosen at its low end.

    Args:
        ind: In-distribution scores, float64 [N].
        ood: Scores of the OOD set, float64 [M].
        threshold: Score above which an image is flagged.
        alt: What the picture shows, in words.
    """
    false_alarms, detected = roc_points(ind, ood)

    def draw(figure: Figure, theme: Theme) -> None:
        panel, guessing = figure.subplots(), np.linspace(0, 1, 100)
        panel.plot(np.sqrt(guessing), guessing, color=theme.line, lw=0.8, ls=":", alpha=0.6)
        panel.plot(np.sqrt(false_alarms), detected, color=theme.ood, lw=1.8, clip_on=False)
        calibrated = (float(np.sqrt(np.mean(ind > threshold))), float(np.mean(ood > threshold)))
        panel.plot(*calibrated, "o", color=theme.line, ms=6, clip_on=False, zorder=3)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="false alarms, %", ylabel="detected, %")
        panel.set_xticks([rate**0.5 for rate in TICKS], [f"{100 * rate:g}" for rate in TICKS])
        panel.set_yticks([0, 0.5, 1], ["0", "50", "100"])

    return chart_picture(draw, (2.9, 2.7), alt)


def roc_points(ind: FloatArray, ood: FloatArray) -> tuple[FloatArray, FloatArray]:
    """False alarms [P] and detection [P] when every image that scores at least v is flagged, for v from high to low."""
    values = np.unique(np.concatenate([ind, ood]))[::-1]
    rates = [1 - np.searchsorted(np.sort(scores), values, "left") / scores.size for scores in (ind, ood)]
    return np.concatenate([[0.0], rates[0]]), np.concatenate([[0.0], rates[1]])
