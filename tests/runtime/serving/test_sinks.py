"""Rows come back from each format as they went in, and an output file is there whole or not at all."""

import csv
import json
import math
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.serving import sinks
from diffood.runtime.serving.rows import COLUMNS, Row
from diffood.runtime.serving.sinks import Sink

ENDINGS = [".jsonl", ".csv", ".parquet"]

ROWS = [
    Row("a.png", "00" * 32, "ok", 0.1 + 0.2, 1 / 3, 1.5, False, 3, "coat", 0.75, 1, 16),
    Row(
        "ü🙂/名前.png", "11" * 32, "ok", 1e-300, 0.0625, 1.5, True, 0, 'T-shirt, "top"', 1.0, 1, 16, "resized from 9x9"
    ),
    Row("broken\nname\r'\".png", "", "rejected", error="The file is empty (0 bytes); copy it again, please."),
    Row("nan.png", "22" * 32, "invalid", math.nan, 0.0625, 1.5, True, 0, "", math.inf, 1, 16, error="not finite"),
    Row("=1+1.png", "33" * 32, "ok", -0.0, 1.0, -2.5, False, 9, "\\xff", -math.inf, 1, 0, "\u2028"),
]


def read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text("utf-8").split("\n")[:-1]]
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    kinds: dict[str, Callable[[str], Any]] = {
        "text": str,
        "real": float,
        "whole": int,
        "truth": {"True": True, "False": False}.__getitem__,
    }
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    # CSV has one empty cell: it is None for numbers, and for the class of a rejected row.
    return [
        {
            name: None if text == "" and (kind != "text" or (name == "class_name" and row["status"] == "rejected"))
            else kinds[kind](text)
            for (name, kind), text in zip(COLUMNS.items(), row.values(), strict=True)
        }
        for row in rows
    ]  # fmt: skip


def test_columns_are_the_fields_of_a_row() -> None:
    kinds: dict[Any, str] = {float: "real", int: "whole", bool: "truth"}
    hints = typing.get_type_hints(Row)
    # X | None holds X first; what a Literal holds is text.
    assert {name: kinds.get((typing.get_args(hint) or (hint,))[0], "text") for name, hint in hints.items()} == COLUMNS
    assert list(COLUMNS) == list(hints) == list(ROWS[0].values())


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_come_back_equal(tmp_path: Path, ending: str) -> None:
    with Sink(tmp_path / f"rows{ending}") as sink:
        for row in ROWS:
            sink.write(row)
    assert read_back(tmp_path / f"rows{ending}") == [row.values() for row in ROWS]
    assert [path.name for path in tmp_path.iterdir()] == [f"rows{ending}"]


def test_numbers_that_are_not_finite_become_none() -> None:
    values = ROWS[3].values()
    assert values["score"] is None
    assert values["confidence"] is None
    assert values["is_ood"] is True


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_rows_make_a_readable_file(tmp_path: Path, ending: str) -> None:
    with Sink(tmp_path / f"rows{ending}"):
        pass
    assert read_back(tmp_path / f"rows{ending}") == []


def test_parquet_groups_keep_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "PARQUET_GROUP", 2)
    with Sink(tmp_path / "rows.parquet") as sink:
        for row in ROWS:
            sink.write(row)
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 3
    assert read_back(tmp_path / "rows.parquet") == [row.values() for row in ROWS]


def test_parquet_keeps_types_where_a_column_is_empty(tmp_path: Path) -> None:
    with Sink(tmp_path / "rows.parquet") as sink:
        sink.write(ROWS[2])
    types = {"text": "string", "real": "double", "whole": "int64", "truth": "bool"}
    schema = pq.read_schema(tmp_path / "rows.parquet")
    assert {field.name: str(field.type) for field in schema} == {name: types[kind] for name, kind in COLUMNS.items()}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path: Path, ending: str, error: type[BaseException]) -> None:
    path = tmp_path / "new" / f"rows{ending}"
    with pytest.raises(error), Sink(path) as sink:
        sink.write(ROWS[0])
        raise error
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_old_file_is_replaced_whole_or_left_alone(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), Sink(path) as sink:
        sink.write(ROWS[0])
        assert path.read_bytes() == b"old"
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with Sink(path) as sink:
        sink.write(ROWS[0])
        assert path.read_bytes() == b"old"
    assert read_back(path) == [ROWS[0].values()]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.csv.gz", ".csv", "rows.CSV"])
def test_an_unknown_ending_is_wrong_usage(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"no known ending: use one of \.jsonl, \.csv, \.parquet"):
        Sink(tmp_path / name)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path, ending: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / f"folder{ending}").mkdir()
    for path in (tmp_path / "file" / f"rows{ending}", tmp_path / f"folder{ending}"):
        with pytest.raises(DiffoodError, match="choose another --output"), Sink(path):
            pytest.fail("entered")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is tried on /dev/full")
@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
@pytest.mark.parametrize("count", [1, 1000])
def test_a_full_disk_is_explained_and_leaves_the_old_file(tmp_path: Path, ending: str, count: int) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(b"old")
    path.with_name(f"rows{ending}.partial").symlink_to("/dev/full")
    with pytest.raises(DiffoodError, match="No space left"), Sink(path) as sink:
        for _ in range(count):
            sink.write(ROWS[0])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_pyarrow_parquet_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DiffoodError, match=r"pip install pyarrow, or write \.jsonl"), Sink(tmp_path / "rows.parquet"):
        pytest.fail("entered")
    assert list(tmp_path.iterdir()) == []
