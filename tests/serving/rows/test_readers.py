"""Rows come back as the sink wrote them, from each format, and from JSON lines that are still being written."""

from pathlib import Path

import pytest
from written import finish, open_at, run_of, write

from diffood.errors import UsageError
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.open import open_output
from diffood.serving.rows.formats.registry import FORMATS
from diffood.serving.rows.readers import BLOCK, follow_rows, read_rows
from diffood.serving.rows.row import Row

ROWS = [
    Row(
        "a.png", "00" * 32, "ok", -0.1 - 0.2, 1 / 3, -0.2, False, 3, "coat", 0.75, 1, 16
    ),  # as a fusion by sum may score
    Row(
        "ü🙂/名前.png", "11" * 32, "ok", 1e-300, 0.0625, 1.5, True, 0, 'T-shirt, "top"', 1.0, 1, 16, "resized from 9x9"
    ),
    Row("broken\nname\r'\".png", "", "rejected", error="The file is empty (0 bytes); copy it again, please."),
    Row("nan.png", "22" * 32, "invalid", None, 0.0625, 1.5, True, 0, "coat", None, 1, 16, error="not finite"),
    Row("=1+1.png", "33" * 32, "ok", 0.0, 1.0, 0.0, False, 9, "\\xff", 0.0, 1, 0, "\u2028"),
]


def read(path: Path) -> list[Row]:
    return [row for block in read_rows(path) for row in block]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("count", [0, 1, BLOCK // len(ROWS) + 1])
def test_rows_come_back_as_they_were_written(tmp_path: Path, ending: str, count: int) -> None:
    path = write(tmp_path / f"rows{ending}", ROWS * count, part_rows=BLOCK)
    assert read(path) == ROWS * count
    assert all(len(block) <= BLOCK for block in read_rows(path))


def test_json_lines_are_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with open_at(path) as output:
        for index, row in enumerate(ROWS):
            output.write(row)
            assert read(path) == read(tmp_path / "rows.jsonl.partial") == ROWS[: index + 1]
        finish(output)
    assert read(path) == ROWS


@pytest.mark.parametrize("kind", FORMATS)
def test_a_folder_of_parts_is_read_in_order_and_while_it_is_written(tmp_path: Path, kind: str) -> None:
    place = OutputLayout.of(tmp_path / "rows", kind)
    with open_output(place, run_of(place, part_rows=2)) as output:
        for index, row in enumerate(ROWS * 5):
            output.write(row)
            assert read(place.path) == (ROWS * 5)[: index + 1]
        finish(output)
    assert read(place.path) == ROWS * 5
    assert len(list(place.path.glob(f"part-*.{kind}"))) == 13
    place.part(4).unlink()
    with pytest.raises(UsageError, match=r"lacks part 4, and has part-000012"):
        read(place.path)


def test_a_torn_last_line_is_ignored_in_a_partial_file_only(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", ROWS).read_bytes()
    partial = tmp_path / "torn.jsonl.partial"
    for missing in range(1, 40):
        partial.write_bytes(data[:-missing])
        assert read(partial) == ROWS[:-1]
    whole = tmp_path / "whole.jsonl"
    whole.write_bytes(data[:-1])
    assert read(whole) == ROWS
    whole.write_bytes(data[:-2])
    with pytest.raises(UsageError, match=r"whole\.jsonl, line 5 is not JSON"):
        read(whole)


def test_following_gives_what_was_added_and_survives_the_renaming(tmp_path: Path) -> None:
    data = write(tmp_path / "source.jsonl", ROWS).read_bytes()
    end = data.index(b"\n") + 1
    partial = tmp_path / "rows.jsonl.partial"
    partial.write_bytes(data[: end + 5])
    blocks = follow_rows(tmp_path / "rows.jsonl", interval=0)
    assert next(blocks) == (ROWS[0],)
    assert next(blocks) == ()
    assert next(blocks) == ()
    with partial.open("ab") as file:
        file.write(data[end + 5 :])
    assert next(blocks) == tuple(ROWS[1:])
    assert next(blocks) == ()
    partial.rename(tmp_path / "rows.jsonl")
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write(data[:end])
    assert next(blocks) == (ROWS[0],)
    (tmp_path / "rows.jsonl").write_bytes(b"")
    assert next(blocks) == ()
    with pytest.raises(UsageError, match="became shorter"):
        next(blocks)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows.txt", "no known ending"),
        ("rows.csv.partial", "no known ending"),
        ("rows", "no known ending"),
        ("absent.jsonl", "No such file"),
        ("growing.csv", r"No such file: .*growing\.csv yet; growing\.csv\.partial is being written, and only \.jsonl"),
        ("folder", "holds no parts"),
    ],
)
def test_what_cannot_be_read_is_wrong_usage(tmp_path: Path, name: str, message: str) -> None:
    for file in ("rows.txt", "rows.csv.partial", "rows", "growing.csv.partial"):
        (tmp_path / file).touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=message):
        read(tmp_path / name)


def test_only_json_lines_are_followed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only \.jsonl can be read while it grows"):
        next(follow_rows(write(tmp_path / "rows.csv", ROWS), interval=0))
    with pytest.raises(UsageError, match="is not a file"):
        next(follow_rows(write(tmp_path / "rows", ROWS), interval=0))
