"""One row of output: the verdict on one file. Defines columns and their types, not how they are written."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

CellValue = str | int | float | bool | None
ColumnType = Literal["string", "float", "int", "bool"]
CertificateState = Literal["", "holds", "withdrawn", "none"]


@dataclass(frozen=True)
class Row:
    """The verdict on one file, or the reason why there is none. Equal on every run: timings go to the summary.

    Attributes:
        id: Path relative to the folder given, or the name inside a shard or table.
        sha256: Of the file's bytes; "" where they could not be read.
        status: "ok": scored. "rejected": the file was refused, `error` says why and the numbers are None. "invalid":
            the models returned a value that is not finite; `is_ood` is True.
        score: Higher is more out-of-distribution.
        p_value: In [0, 1].
        threshold: Scores above it are flagged.
        is_ood: Whether the image is flagged as out-of-distribution.
        confidence: Largest softmax probability of the classifier, in [0, 1].
        stage: Stage at which scoring stopped, from 1.
        unet_evaluations: UNet evaluations spent on the image.
        note: What was changed while reading, for example a resize.
        error: Why the file was refused or its score is invalid.
        selected: Whether --fdr selects the image as out-of-distribution; None without --fdr.
        certificate: Of the promise about false alarms when the row was written: "holds", "withdrawn" after feedback,
            "none" for a threshold that promises nothing, "" for a file that was refused.
    """

    id: str
    sha256: str
    status: Literal["ok", "rejected", "invalid"]
    score: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    is_ood: bool | None = None
    predicted_class: int | None = None
    class_name: str | None = None
    confidence: float | None = None
    stage: int | None = None
    unet_evaluations: int = 0
    note: str = ""
    error: str = ""
    selected: bool | None = None
    certificate: CertificateState = ""

    def values(self) -> dict[str, CellValue]:
        """Columns in order; numbers that are not finite become None, as not every format can hold them."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in vars(self).items()
        }


def _column_type(hint: Any) -> ColumnType:
    first = (get_args(hint) or (hint,))[0]  # X | None lists X first; the values of a Literal are strings
    types: dict[Any, ColumnType] = {float: "float", int: "int", bool: "bool"}
    return types.get(first, "string")


COLUMNS: dict[str, ColumnType] = {name: _column_type(hint) for name, hint in get_type_hints(Row).items()}
"""Type of each column, in the order of Row's fields."""
