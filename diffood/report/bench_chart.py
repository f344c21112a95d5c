"""The chart of a comparison: throughput and latency, a dot a contender, on axes of powers of ten."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from diffood.bench.compare import Comparison, Row, readable
from diffood.report.charts.style import PALETTE, save


def draw_comparison(found: Comparison, path: Path) -> None:
    """Draw images a second, with spreads and ratios to the first, beside the milliseconds of one image alone."""
    rows, count = found.rows, len(found.rows)
    figure = Figure(figsize=(10, 1.3 + 0.34 * count), layout="constrained")
    many, one = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):  # dots: a bar's length says nothing on an axis without a zero
        rate, latency, colour = row.images_per_second, row.latency, _colour(row)
        many.plot((rate.low, rate.high), (place, place), color=colour, lw=2)
        many.plot(rate.median, place, "o", color=colour)
        _label(many, rate.high, place, f"{readable(rate.median)}/s, {readable(row.ratio.median)}x")
        if latency:
            tail = latency.p99 or latency.p95 or latency.p50
            one.plot((latency.p50, tail), (place, place), color=colour, lw=2)
            one.plot(latency.p50, place, "o", color=colour)
            _label(one, tail, place, f"{readable(latency.p50)} ms, {readable(latency.ratio.median)}x")
    many.set_yticks(range(count), [row.name for row in rows], fontsize=8)
    many.set_ylim(count - 0.5, -0.5)
    titles = "images a second, many at once", "one image alone, ms: median, line to its p99 (p95)"
    for panel, title in zip((many, one), titles, strict=True):
        panel.set_title(title, loc="left", fontsize=9)
        panel.set_xscale("log")
        low, high = panel.get_xlim()
        panel.set_xlim(low / 1.5, high * 6)  # room for the words behind the last dot
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high > 30 * low else (1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(axis="y", color="#000000", alpha=0.12)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    machine = found.machine
    figure.supxlabel(f"{machine.processor}, {machine.cores} cores; x: times the first row", fontsize=8)
    save(figure, path)


def _colour(row: Row) -> str:
    return PALETTE[0] if row.name.startswith("diffood") else PALETTE[6]


def _label(panel: Axes, x: float, y: int, words: str) -> None:
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the line to the dot
    panel.annotate(words, (x, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=7.5, bbox=paper)
