"""Throughput and latency of every contender that `diffood bench` timed, on logarithmic axes."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from diffood.bench.compare import Comparison, ContenderResult, readable
from diffood.report.charts.style import PALETTE, Theme, save_chart

TITLES = ("images per second, many at once", "one image alone, ms: median, line to its p99 (p95)")


def draw_comparison(found: Comparison, path: Path) -> None:
    """Write images per second with their spread, and milliseconds of one image alone, as PNG.

    Contenders are dots: the length of a bar means nothing on an axis without a zero.
    """
    rows, machine = found.rows, found.machine

    def draw(figure: Figure, _: Theme) -> None:
        many, one = figure.subplots(1, 2, sharey=True)
        for place, row in enumerate(rows):
            _plot_row(many, one, row, place)
        many.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
        many.set_ylim(len(rows) - 0.5, -0.5)
        for panel, title in zip((many, one), TITLES, strict=True):
            panel.set_title(title)
            _set_axis(panel)
        figure.supxlabel(f"{machine.processor}, {machine.cores} cores; x: times the first row", fontsize=8)

    save_chart(draw, (10, 1.3 + 0.34 * len(rows)), path)


def _plot_row(many: Axes, one: Axes, row: ContenderResult, place: int) -> None:
    colour = PALETTE[0] if row.name.startswith("diffood") else PALETTE[6]
    rate, latency = row.images_per_second, row.latency
    many.plot((rate.low, rate.high), (place, place), color=colour, lw=2)
    many.plot(rate.median, place, "o", color=colour)
    _label(many, rate.high, place, f"{readable(rate.median)}/s, {readable(row.ratio.median)}x")
    if latency:
        tail = latency.p99 or latency.p95 or latency.p50
        one.plot((latency.p50, tail), (place, place), color=colour, lw=2)
        one.plot(latency.p50, place, "o", color=colour)
        _label(one, tail, place, f"{readable(latency.p50)} ms, {readable(latency.ratio.median)}x")


def _set_axis(panel: Axes) -> None:
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    panel.set_xlim(low / 1.5, high * 9)  # room for the label behind the last dot
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high > 30 * low else (1, 2, 5)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="y", color="#000000", alpha=0.12)
    panel.tick_params(axis="y", length=0)


def _label(panel: Axes, x: float, y: int, text: str) -> None:
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the line to the dot
    panel.annotate(text, (x, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=7.5, bbox=paper)
