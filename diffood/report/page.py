"""Renders a report as one self-contained HTML file: no network, no script, no clock."""

from importlib.resources import files
from pathlib import Path

from diffood.calibration.metrics.comparison import CLEARLY
from diffood.calibration.metrics.formatting import exact_percent, percent, points, probability, ratio
from diffood.report.contents import Report
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.printable import escape_for_terminal

TEMPLATE = "report.html.jinja"


def write_report(report: Report, path: Path) -> None:
    """Write the page in one move; makes the folders above it. The same report gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, render(report).encode())


def render(report: Report) -> str:
    """The page as text. Whatever names the report holds, they are escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, finalize=_show, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = (percent, exact_percent, number, points, ratio, probability)
    environment.filters |= {made.__name__: made for made in filters}
    template = environment.from_string(files("diffood.report").joinpath(TEMPLATE).read_text("utf-8"))
    return template.render(report=report, clearly=CLEARLY)


def number(value: float) -> str:
    """A score: four significant digits."""
    return f"{value:.4g}"


def _show(value: object) -> object:
    """What an expression of the template gives; a text, unless it is markup already, without what acts or is hidden."""
    return escape_for_terminal(value) if type(value) is str else value
