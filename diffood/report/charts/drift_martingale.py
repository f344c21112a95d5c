"""The martingale that tests served rows for drift."""

from pathlib import Path

from matplotlib.figure import Figure

from diffood.calibration.drift.monitor import DriftReport
from diffood.report.charts.style import WIDTH, Theme, save_chart


def draw_martingale(report: DriftReport, path: Path) -> None:
    """Write log10 of the martingale over the served rows, its alarm line, and where drift began, as PNG."""
    began = report.began.row if report.began else None

    def draw(figure: Figure, theme: Theme) -> None:
        panel = figure.subplots()
        panel.plot(report.numbers, report.path, color=theme.ind, lw=1.2)
        panel.axhline(report.log10_alarm, color=theme.line, lw=1.2, ls="--")
        right = panel.get_yaxis_transform()
        panel.annotate("alarm ", (1, report.log10_alarm), xycoords=right, va="bottom", ha="right", fontsize=8)
        if began is not None:
            panel.axvspan(began, int(report.numbers[-1]), color=theme.line, alpha=0.08, lw=0)
            panel.axvline(began, color=theme.ood, lw=1.2)
            top = panel.get_xaxis_transform()
            panel.annotate(f" began about row {began}", (began, 0.98), xycoords=top, va="top", fontsize=8)
        panel.set_xlabel("served row")
        panel.set_ylabel("log10 of the martingale")

    save_chart(draw, (WIDTH, 3), path)
