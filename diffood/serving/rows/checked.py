"""Turns values read from a file that is not trusted into rows; the only way by which they become rows."""

import math
from collections.abc import Iterable
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from diffood.errors import UsageError
from diffood.runtime.records import explain_invalid
from diffood.serving.rows.row import COLUMNS, Row

MAX_LINE_BYTES = 2**20  # a row has some hundred bytes; the longest path and reason stay below this
REMEDY = "give a file as `diffood serve-batch` writes it"

# Row's own fields, all required and none converted: the string "1" is not a number, the number 1 is not a bool.
_FIELDS: Any = {name: (kind, ...) for name, kind in get_type_hints(Row).items()}
_COLUMNS: type[BaseModel] = create_model("Columns", __config__=ConfigDict(strict=True), **_FIELDS)


def require_columns(names: Iterable[str], where: str) -> None:
    """Raise UsageError where a column of a row is missing."""
    missing = [name for name in COLUMNS if name not in set(names)]
    if missing:
        raise UsageError(f"{where} lacks {', '.join(map(repr, missing))}; {REMEDY}.")


def check_row(values: dict[str, Any], where: str) -> Row:
    """The row of these values. Raises UsageError that begins with `where`, the file and line, and names the value."""
    with explain_invalid(where, REMEDY, UsageError):
        row = Row(**_COLUMNS.model_validate(values).model_dump())
    try:
        "".join((row.id, row.sha256, row.class_name or "")).encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise UsageError(f"{where} holds text that is not Unicode; {REMEDY}.") from None
    for name in ("score", "p_value", "threshold", "confidence"):
        value = getattr(row, name)
        if value is not None and not math.isfinite(value):
            raise UsageError(f"{where}: {name} is {value}, not a finite number; {REMEDY}.")
    for name in ("p_value", "confidence"):
        value = getattr(row, name)
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{where}: {name} is {value}, not between 0 and 1; {REMEDY}.")
    if row.status != "rejected":
        if row.threshold is None:
            raise UsageError(f"{where}: status is {row.status!r}, but there is no threshold; {REMEDY}.")
        if row.score is None and not row.is_ood:
            raise UsageError(f"{where}: there is no score and is_ood is {row.is_ood}; {REMEDY}.")
    return row
