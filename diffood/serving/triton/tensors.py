"""Rows as the tensors that Triton sends to clients: one output per column."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from diffood.serving.rows.row import COLUMNS, CellValue, ColumnType, Row

# Type of Triton, type of numpy, and the value that stands for None.
TYPES: dict[ColumnType, tuple[str, Any, CellValue]] = {
    "string": ("TYPE_STRING", np.object_, ""),
    "float": ("TYPE_FP64", np.float64, math.nan),
    "int": ("TYPE_INT64", np.int64, -1),
    "bool": ("TYPE_BOOL", np.bool_, True),  # is_ood of a refused image: it was never shown to be in-distribution
}

OUTPUTS = {name: kind for name, kind in COLUMNS.items() if name not in ("id", "selected", "certificate")}
"""The columns of a row except its id, which the client knows, and those that speak of a run of serve-batch."""


def make_tensors(rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
    """The outputs of N rows by name, each [N, 1]; strings as UTF-8 bytes, None as `TYPES` says."""
    table = [row.values() for row in rows]
    return {
        name: np.array([_encode(values[name], kind) for values in table], TYPES[kind][1]).reshape(-1, 1)
        for name, kind in OUTPUTS.items()
    }


def _encode(value: CellValue, kind: ColumnType) -> CellValue | bytes:
    value = TYPES[kind][2] if value is None else value
    return cast(str, value).encode() if kind == "string" else value
