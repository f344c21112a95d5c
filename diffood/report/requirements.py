"""What pictures and pages need, looked up before the work begins. Imports none of it."""

from importlib.util import find_spec
from pathlib import Path

from diffood.errors import MissingExtraError, UsageError
from diffood.runtime.writable import require_writable

DRAW = "pip install 'diffood[pictures]'"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def require_pictures(path: Path) -> None:
    """Check that a picture can be drawn and written. Raises MissingExtraError without matplotlib, UsageError."""
    if not can_draw():
        raise MissingExtraError(f"Drawing {path} needs matplotlib, which is not installed: {DRAW}.")
    require_writable(path, "The picture")


def require_report(path: Path) -> None:
    """Check that a report can be made and written.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
        UsageError: The path is a folder, or cannot be written.
    """
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"A report needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'diffood[report]'."
        )
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the report's file, for example {path / 'report.html'}.")
    require_writable(path, "The report")
