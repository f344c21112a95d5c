"""A row of output: what is said of one file. Columns, their types, nothing of formats."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Row:
    """The verdict on one file, or why there is none. The same on every run: timings go to the summary.

    status "ok": scored; "rejected": the file was refused, error says why and the numbers are None; "invalid": the
    models gave a value that is not finite, is_ood is True. stage: at which it ended, from 1. note: what was changed
    while reading, e.g. a resize.
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

    def values(self) -> dict[str, Value]:
        """Columns in order; numbers that are not finite become None, as no format carries them safely."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


# Parquet's and CSV's column types, in the order of Row's fields.
COLUMNS: dict[str, Literal["text", "real", "whole", "truth"]] = {
    "id": "text",
    "sha256": "text",
    "status": "text",
    "score": "real",
    "p_value": "real",
    "threshold": "real",
    "is_ood": "truth",
    "predicted_class": "whole",
    "class_name": "text",
    "confidence": "real",
    "stage": "whole",
    "unet_evaluations": "whole",
    "note": "text",
    "error": "text",
}
