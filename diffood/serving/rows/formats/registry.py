"""All formats of rows by name."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from diffood.serving.rows.formats.base import RowFormat
from diffood.serving.rows.formats.comma_separated import CommaSeparated
from diffood.serving.rows.formats.json_lines import JsonLines
from diffood.serving.rows.formats.parquet import Parquet

JSON_LINES = JsonLines()

FORMATS: dict[str, RowFormat] = {known.name: known for known in (JSON_LINES, CommaSeparated(), Parquet())}

DEFAULT_PARTS = Parquet.name
"""Format of the parts of a folder where none is asked for."""

ENDINGS = ", ".join(f".{name}" for name in FORMATS)


def format_of(path: Path) -> RowFormat | None:
    """The format that the ending of a name stands for."""
    return FORMATS.get(path.suffix.removeprefix(".")) if path.suffix else None


def _require_known(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"it is not one of {', '.join(FORMATS)}")
    return name


FormatName = Annotated[str, AfterValidator(_require_known)]
"""Field of a record that names a format."""
