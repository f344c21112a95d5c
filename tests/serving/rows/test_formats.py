"""Rows come back from each format as they went in, from one file and from parts."""

import csv
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from written import ROWS, write

from diffood.serving.rows.formats.registry import FORMATS
from diffood.serving.rows.row import COLUMNS, Row

ENDINGS = [".jsonl", ".csv", ".parquet"]


def read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text("utf-8").split("\n")[:-1]]
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    kinds: dict[str, Callable[[str], Any]] = {
        "string": str,
        "float": float,
        "int": int,
        "bool": {"True": True, "False": False}.__getitem__,
    }
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    # CSV has one empty cell: it is None for numbers, and for the class of a rejected row.
    return [
        {
            name: None if text == "" and (kind != "string" or (name == "class_name" and row["status"] == "rejected"))
            else kinds[kind](text)
            for (name, kind), text in zip(COLUMNS.items(), row.values(), strict=True)
        }
        for row in rows
    ]  # fmt: skip


def test_columns_are_the_fields_of_a_row() -> None:
    kinds: dict[Any, str] = {float: "float", int: "int", bool: "bool"}
    hints = typing.get_type_hints(Row)
    # X | None holds X first; what a Literal holds is text.
    assert {name: kinds.get((typing.get_args(hint) or (hint,))[0], "string") for name, hint in hints.items()} == COLUMNS
    assert list(COLUMNS) == list(hints) == list(ROWS[0].values())


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_come_back_equal(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"rows{ending}", ROWS)
    assert read_back(path) == [row.values() for row in ROWS]
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, f"{path.name}.summary.json"]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_file_is_the_rows_of_a_growing_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(FORMATS[kind].encode(ROWS))
    assert read_back(path) == [row.values() for row in ROWS]
    if kind != "parquet":
        assert write(tmp_path / f"other.{kind}", ROWS).read_bytes() == path.read_bytes()


def test_numbers_that_are_not_finite_become_none() -> None:
    values = ROWS[3].values()
    assert values["score"] is None
    assert values["confidence"] is None
    assert values["is_ood"] is True


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_rows_make_a_readable_file(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"rows{ending}", [])
    assert read_back(tmp_path / f"rows{ending}") == []


def test_a_parquet_file_has_a_group_a_part(tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", ROWS, part_rows=2)
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 3
    assert read_back(tmp_path / "rows.parquet") == [row.values() for row in ROWS]


def test_parquet_keeps_types_where_a_column_is_empty(tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", ROWS[2:3])
    types = {"string": "string", "float": "double", "int": "int64", "bool": "bool"}
    schema = pq.read_schema(tmp_path / "rows.parquet")
    assert {field.name: str(field.type) for field in schema} == {name: types[kind] for name, kind in COLUMNS.items()}
