"""Accuracy of the images that are kept when the most suspicious are refused, and the open-set classification rate."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from diffood.calibration.metrics.rejection import KEPT, OscrCurve, Rejection
from diffood.report.charts.style import PAGE_WIDTH, WIDTH, Picture, Theme, chart_picture, save_chart

IN_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:g}")


def plot_accuracy(panel: Axes, found: Rejection, theme: Theme) -> None:
    """Draw accuracy against the share of in-distribution images kept; dotted: the accuracy on all of them."""
    curve = found.curve
    panel.plot(curve.kept, curve.accuracy, color=theme.ind, lw=1.8, drawstyle="steps-post")
    panel.axhline(found.accuracy, color=theme.line, lw=0.8, ls=":", alpha=0.6)
    panel.set(xlim=(1, 0), ylim=(max(0, float(curve.accuracy.min()) - 0.02), 1.002))
    panel.set(xlabel="in-distribution images kept, %", ylabel="classified correctly, %")
    panel.xaxis.set_major_formatter(IN_PERCENT)
    panel.yaxis.set_major_formatter(IN_PERCENT)


def plot_open_set(panel: Axes, curve: OscrCurve, theme: Theme) -> None:
    """Draw the share of in-distribution images kept and classified correctly against the share of OOD images kept."""
    panel.plot(100 * curve.false_positive_rate, 100 * curve.correct_classification_rate, color=theme.ood, lw=1.8)
    panel.set(xlim=(0, 100), ylim=(0, 100), xlabel="OOD images kept, %", ylabel="InD kept and correct, %")


def draw_rejection(found: Rejection, path: Path) -> None:
    """Write the curves side by side, as PNG."""

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(1, 2 if found.oscr else 1, squeeze=False)[0]
        plot_accuracy(panels[0], found, theme)
        panels[0].set_title(f"accuracy {found.accuracy:.1%}, AURC {found.curve.aurc:.4f}")
        if found.oscr:
            plot_open_set(panels[1], found.oscr, theme)
            panels[1].set_title(f"OSCR {found.oscr.area:.1%}")

    save_chart(draw, (WIDTH, 3.2), path)


def rejection_picture(found: Rejection) -> Picture:
    """Draw accuracy against the share kept, for a page."""
    kept = ", ".join(f"{found.curve.accuracy_at(share):.1%} of the least suspicious {share:.0%}" for share in KEPT)
    alt = f"Accuracy against the share of images kept: {found.accuracy:.1%} of all, {kept}."
    return chart_picture(lambda figure, theme: plot_accuracy(figure.subplots(), found, theme), (PAGE_WIDTH, 2.7), alt)
