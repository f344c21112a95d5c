"""Attack: files of rows that are damaged, made up, or too long, in each format; every refusal names file and place."""

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffood.errors import UsageError
from diffood.serving.rows.checked import MAX_LINE_BYTES
from diffood.serving.rows.readers import read_rows
from diffood.serving.rows.row import COLUMNS, Row

Values = dict[str, Any]

GOOD = Row("a.png", "00" * 32, "ok", 0.5, 0.3, 1.5, False, 3, "coat", 0.75, 1, 16).values()

# What one value becomes, and what the refusal names.
CHANGES: dict[str, tuple[Values, str]] = {
    "score is text": ({"score": "high"}, "score"),
    "p_value is negative": ({"p_value": -0.5}, "p_value is -0.5"),
    "confidence is above 1": ({"confidence": 1.5}, "confidence is 1.5"),
    "score is missing": ({"score": None}, "there is no score and is_ood is False"),
    "nothing is known": ({"score": None, "is_ood": None}, "there is no score and is_ood is None"),
    "threshold is missing": ({"threshold": None}, "there is no threshold"),
    "threshold is text": ({"threshold": "low"}, "threshold"),
    "status is unknown": ({"status": "fine"}, "status"),
    "is_ood is a number": ({"is_ood": 7}, "is_ood"),
    "class is a fraction": ({"predicted_class": 1.5}, "predicted_class"),
    "class is text": ({"predicted_class": "coat"}, "predicted_class"),
    "escapes in a value": ({"status": "\x1b[31m"}, "status"),
}
LACKING = sorted(COLUMNS)


def write_json(path: Path, rows: list[Values]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path: Path, rows: list[Values]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[Values]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[Values]], None]] = {
    ".jsonl": write_json,
    ".csv": write_csv,
    ".parquet": write_parquet,
}


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        for _ in read_rows(path):
            pass
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    assert len(message) < 600
    return message


def test_a_row_that_is_none_is_refused_with_its_place(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for ending, name in itertools.product(WRITERS, CHANGES):
        with subtests.test(ending=ending, name=name):
            change, expected = CHANGES[name]
            path = tmp_path / f"rows{ending}"
            # in Parquet a column has one type, so that the good row cannot stand before the bad one
            rows = [GOOD | change] if ending == ".parquet" else [GOOD, GOOD | change]
            WRITERS[ending](path, rows)
            message = refusal(path)
            assert expected in message
            assert {".jsonl": "line 2", ".csv": "line 3", ".parquet": "row 1"}[ending] in message


def test_a_missing_column_is_named(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for ending, column in itertools.product(WRITERS, LACKING):
        with subtests.test(ending=ending, column=column):
            path = tmp_path / f"rows{ending}"
            WRITERS[ending](path, [{name: value for name, value in GOOD.items() if name != column}])
            assert column in refusal(path)


def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for ending, value, column in itertools.product(
        WRITERS, [float("nan"), float("inf"), float("-inf")], ["score", "threshold"]
    ):
        with subtests.test(ending=ending, value=value, column=column):
            path = tmp_path / f"rows{ending}"
            WRITERS[ending](path, [GOOD | {column: value}])
            refusal(path)


def test_a_line_that_is_no_row_is_refused_with_its_number(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for line in [
        b"{",
        b"",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        json.dumps(GOOD).replace("0.5", "1e999").encode(),
        json.dumps(GOOD).replace("0.5", "9" * 10_000).encode(),
        json.dumps(GOOD).replace("a.png", "\\ud800").encode(),
    ]:
        with subtests.test(line=line):
            path = tmp_path / "rows.jsonl"
            path.write_bytes(json.dumps(GOOD).encode() + b"\n" + line + b"\n")
            assert "line 2" in refusal(path)


def test_a_huge_line_is_refused_unread(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for ending in [".jsonl", ".jsonl.partial", ".csv"]:
        with subtests.test(ending=ending):
            path = tmp_path / f"rows{ending}"
            with path.open("wb") as file:
                file.truncate(2**36)  # sparse: 64 GB without a line's end
            assert f"line 1 has more than {MAX_LINE_BYTES} bytes" in refusal(path)


def test_a_damaged_csv_is_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for text, expected in [
        (b"", "lacks 'id'"),
        (b"\xff\n", "line 1 is not UTF-8"),
        (b"id,sha256\na,b\n", "line 1 lacks 'status'"),
        (b"%s\n%s,extra\n", "line 2 has more values than columns"),
        (b'%s\n"a"b,1\n', "line 2 is not CSV"),
        (b'%s\n"open\n', "is not CSV"),
        (b"%s\na,b\n", "line 2"),
        (b"%s\n'\\q%s\n", 'line 2: id is "\'\\\\qa.png", not a valid string'),
    ]:
        with subtests.test(text=text, expected=expected):
            path = tmp_path / "rows.csv"
            write_csv(path, [GOOD])
            header, row = path.read_bytes().splitlines()
            path.write_bytes(text.replace(b"%s", header, 1).replace(b"%s", row, 1))
            assert expected in refusal(path)


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, [GOOD] * 50)
    data = path.read_bytes()
    for damaged in (b"", b"PAR1", data[:-4], data[: len(data) // 2], data[:4] + b"\xff" * 60 + data[64:]):
        path.write_bytes(damaged)
        assert "is not a readable Parquet file" in refusal(path)
