"""Turns a report into one HTML file that needs nothing beside it: no network, no script, no clock."""

from importlib.resources import files
from math import isfinite
from pathlib import Path

from diffood.calibration.metrics.comparison import CLEARLY, SMALLEST_SHOWN
from diffood.errors import MissingExtraError, UsageError
from diffood.report.report import Report
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.records import shown

TEMPLATE = "report.html.jinja"


def require_report(path: Path) -> None:
    """Check, before anything is scored, that a report can be made and written to `path`.

    Raises MissingExtraError without jinja2, UsageError for a path that is a folder.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "A report needs jinja2, which is not installed: pip install 'diffood[report]'."
        ) from None
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the report's file, for example {path / 'report.html'}.")


def write_report(report: Report, path: Path) -> None:
    """Write the page in one move; makes the folders above it. The same report gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, render(report).encode())


def render(report: Report) -> str:
    """The page as text. Whatever names the report holds, they are escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {made.__name__: made for made in (percent, rate, number, points, times, chance, shown)}
    template = environment.from_string(files("diffood.report").joinpath(TEMPLATE).read_text("utf-8"))
    return template.render(report=report, clearly=CLEARLY)


def percent(share: float, digits: int = 1) -> str:
    """A share in percent; what is not 0 or 1 is never rounded to it."""
    nearest = 0.5 * 10.0**-digits / 100
    if 0 < share < nearest:
        return f"below {10.0**-digits:g} %"
    if 1 - nearest < share < 1:
        return f"above {100 - 10.0**-digits:.{digits}f} %"
    return f"{share:.{digits}%}".replace("%", " %")


def rate(share: float) -> str:
    """A share that was asked for, in percent, as it was written."""
    return f"{100 * share:g} %"


def number(value: float) -> str:
    """A score: four significant digits."""
    return f"{value:.4g}"


def points(difference: float) -> str:
    """A difference of two shares in points of percent, with its sign."""
    return f"{100 * difference:+.2f}"


def times(ratio: float) -> str:
    """A ratio of two shares; infinite where the second may be none."""
    return f"{ratio:.2f}" if isfinite(ratio) else "no end"


def chance(p_value: float) -> str:
    """A p-value; below SMALLEST_SHOWN the number of zeros says nothing."""
    return f"below {SMALLEST_SHOWN:g}" if p_value < SMALLEST_SHOWN else f"{p_value:.3f}"
