"""The chart of a comparison: throughput and latency, a bar a contender, on axes of powers of ten."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffood.calibration.bench import Comparison, Row
from diffood.calibration.pictures import PALETTE, save
from diffood.errors import UsageError

FORMATS = (".png", ".svg")


def require_picture(path: Path) -> None:
    """UsageError where the name does not end like a picture's."""
    if path.suffix not in FORMATS:
        raise UsageError(f"{path} does not end with {' or '.join(FORMATS)}, which a chart can be written as.")


def draw_comparison(found: Comparison, path: Path) -> None:
    """Draw images a second, with spreads and ratios to the first, beside milliseconds of one image alone."""
    rows, count = found.rows, len(found.rows)
    figure = Figure(figsize=(10, 1.3 + 0.36 * count), layout="constrained")
    many, one = figure.subplots(1, 2, sharey=True)
    rates = [row.images_per_second for row in rows]
    many.barh(range(count), [rate.median for rate in rates], color=[_colour(row) for row in rows], height=0.62)
    for place, (row, rate) in enumerate(zip(rows, rates, strict=True)):
        many.plot((rate.low, rate.high), (place, place), color="black", lw=1.2)
        _label(many, max(rate.high, rate.median), place, f"{rate.median:.3g}/s, {row.ratio.median:.3g}x")
        if row.latency:
            one.barh(place, row.latency.p50, color=_colour(row), height=0.62)
            tail = row.latency.p99 or row.latency.p95 or row.latency.p50
            one.plot((row.latency.p50, tail), (place, place), color="black", lw=1.2)
            _label(one, tail, place, f"{row.latency.p50:.3g} ms, {row.latency.ratio.median:.3g}x")
    many.set_yticks(range(count), [row.name for row in rows], fontsize=8)
    many.set_ylim(count - 0.5, -0.5)
    titles = "images a second, many at once", "one image alone, ms: median, line to its p99 (p95)"
    for panel, title in zip((many, one), titles, strict=True):
        panel.set_title(title, loc="left", fontsize=9)
        panel.set_xscale("log")
        panel.set_xlim(right=panel.get_xlim()[1] * 12)  # room for the words behind the longest bar
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    machine = found.machine
    figure.supxlabel(f"{machine.processor}, {machine.cores} cores; x: times the first row", fontsize=8)
    save(figure, path)


def _colour(row: Row) -> str:
    return PALETTE[0] if row.name.startswith("diffood") else PALETTE[6]


def _label(panel: Axes, x: float, y: int, words: str) -> None:
    panel.annotate(words, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5)
