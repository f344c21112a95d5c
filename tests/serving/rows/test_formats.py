"""Every format of the registry holds any row, whole or growing, and others can read it with their own tools."""

import csv
import json
import math
import typing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from written import ROWS, write

from diffood.serving.rows.formats.base import LineFormat
from diffood.serving.rows.formats.registry import FORMATS
from diffood.serving.rows.readers import read_rows
from diffood.serving.rows.row import COLUMNS, Row

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("'=;\\\"+-@ \n"), max_size=20)
REAL = st.floats(allow_nan=False, allow_infinity=False)
SHARE = st.floats(0, 1)
SCORED = st.builds(
    Row,
    id=TEXT,
    sha256=TEXT,
    status=st.just("ok"),
    score=REAL,
    p_value=SHARE,
    threshold=REAL,
    is_ood=st.booleans(),
    predicted_class=st.integers(0, 2**31),
    class_name=TEXT.filter(bool),  # in CSV, where "" is None
    confidence=SHARE,
    stage=st.integers(1, 9),
    unet_evaluations=st.integers(0, 2**40),
    note=TEXT,
    error=TEXT,
)
REFUSED = st.builds(Row, id=TEXT, sha256=TEXT, status=st.just("rejected"), error=TEXT)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text("utf-8").split("\n")[:-1]]


def read_csv(path: Path) -> list[dict[str, Any]]:
    kinds: dict[str, Callable[[str], Any]] = {
        "string": lambda cell: json.loads(f'"{cell[1:]}"') if cell.startswith("'") else cell,
        "float": float,
        "int": int,
        "bool": {"True": True, "False": False}.__getitem__,
    }
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    # CSV has one empty cell: it is None for numbers, and for the class of a rejected row.
    return [
        {
            name: None
            if text == "" and (kind != "string" or (name == "class_name" and row["status"] == "rejected"))
            else kinds[kind](text)
            for (name, kind), text in zip(COLUMNS.items(), row.values(), strict=True)
        }
        for row in rows
    ]


def read_parquet(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


OTHER_TOOLS = {"jsonl": read_json_lines, "csv": read_csv, "parquet": read_parquet}
"""How a user without diffood reads each format."""


def test_columns_are_the_fields_of_a_row_with_their_types() -> None:
    assert list(COLUMNS) == list(typing.get_type_hints(Row)) == list(ROWS[0].values())
    examples = Row("a", "b", "ok", 0.5, 0.5, 0.5, True, 1, "c", 0.5, 1, selected=True).values()
    assert {name: type(value).__name__.replace("str", "string") for name, value in examples.items()} == COLUMNS


@given(st.lists(SCORED | REFUSED, max_size=5))
def test_any_rows_come_back_from_every_format(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for name, known in FORMATS.items():
        path = folder / f"rows.{name}"
        path.write_bytes(known.encode(rows))
        assert [row for block in read_rows(path) for row in block] == rows, name
        if isinstance(known, LineFormat):
            assert known.encode(rows) == known.header + b"".join(known.encode_row(row) for row in rows), name


def test_other_tools_read_what_is_written(tmp_path: Path) -> None:
    for rows in (ROWS, []):
        for name, read in OTHER_TOOLS.items():
            path, known = write(tmp_path / f"{len(rows)}.{name}", rows), FORMATS[name]
            assert read(path) == [row.values() for row in rows], name
            whole = tmp_path / f"whole-{len(rows)}.{name}"
            whole.write_bytes(known.encode(rows))
            assert read(whole) == [row.values() for row in rows], name
            if isinstance(known, LineFormat):
                assert whole.read_bytes() == path.read_bytes(), name
    summaries = [f"{count}.{name}.summary.json" for count in (0, len(ROWS)) for name in OTHER_TOOLS]
    assert {path.name for path in tmp_path.glob("*.json")} == set(summaries)


def test_numbers_that_are_not_finite_become_none() -> None:
    for value in (math.nan, math.inf, -math.inf):
        values = replace(ROWS[0], score=value, confidence=value).values()
        assert (values["score"], values["confidence"], values["p_value"]) == (None, None, 1 / 3)


def test_a_parquet_file_has_one_group_per_part_and_typed_columns(tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", ROWS, part_rows=2)
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 3
    assert read_parquet(tmp_path / "rows.parquet") == [row.values() for row in ROWS]
    write(tmp_path / "refused.parquet", ROWS[2:3])  # whose numbers are all None
    types = {"string": "string", "float": "double", "int": "int64", "bool": "bool"}
    schema = pq.read_schema(tmp_path / "refused.parquet")
    assert {field.name: str(field.type) for field in schema} == {name: types[kind] for name, kind in COLUMNS.items()}
