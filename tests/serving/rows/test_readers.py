"""Rows are read back as they were written, from files and parts that are complete or still growing."""

from pathlib import Path

import pytest
from written import finish, open_at, read, run_of, write

from diffood.errors import UsageError
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.open import open_output
from diffood.serving.rows.formats.registry import FORMATS
from diffood.serving.rows.readers import BLOCK, follow_rows, read_rows
from diffood.serving.rows.row import Row

ROWS = [
    Row("a.png", "00" * 32, "ok", -0.1 - 0.2, 1 / 3, -0.2, False, 3, "coat", 0.75, 1, 16),  # as fusion by sum may score
    Row(
        "ü🙂/名前.png", "11" * 32, "ok", 1e-300, 0.0625, 1.5, True, 0, 'T-shirt, "top"', 1.0, 1, 16, "resized from 9x9"
    ),
    Row("broken\nname\r'\".png", "", "rejected", error="The file is empty (0 bytes); copy it again, please."),
    Row("nan.png", "22" * 32, "invalid", None, 0.0625, 1.5, True, 0, "coat", None, 1, 16, error="not finite"),
    Row("=1+1.png", "33" * 32, "ok", 0.0, 1.0, 0.0, False, 9, "\\xff", 0.0, 1, 0, "\u2028"),
]


def test_rows_come_in_blocks_of_limited_size(tmp_path: Path) -> None:
    for name in FORMATS:
        for count in (0, 1, BLOCK // len(ROWS) + 1):
            path = write(tmp_path / f"{count}.{name}", ROWS * count, part_rows=BLOCK)
            assert read(path) == ROWS * count, path
            assert all(len(block) <= BLOCK for block in read_rows(path)), path


def test_json_lines_are_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with open_at(path) as output:
        for index, row in enumerate(ROWS):
            output.write(row)
            assert read(path) == read(tmp_path / "rows.jsonl.partial") == ROWS[: index + 1]
        finish(output)
    assert read(path) == ROWS


def test_a_folder_of_parts_is_read_in_order_and_while_it_is_written(tmp_path: Path) -> None:
    for name in FORMATS:
        layout = OutputLayout.of(tmp_path / f"rows-{name}", name)
        with open_output(layout, run_of(layout, part_rows=2)) as output:
            for index, row in enumerate(ROWS * 5):
                output.write(row)
                assert read(layout.path) == (ROWS * 5)[: index + 1], name
            finish(output)
        assert read(layout.path) == ROWS * 5, name
        assert len(list(layout.path.glob(f"part-*.{name}"))) == 13
        layout.part(4).unlink()
        with pytest.raises(UsageError, match=r"lacks part 4, and has part-000012"):
            read(layout.path)


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
    with pytest.raises(UsageError, match=r"whole\.jsonl, line 5 is invalid: it is not JSON"):
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


def test_files_that_cannot_be_read_or_followed_are_wrong_usage(tmp_path: Path) -> None:
    for file in ("rows.txt", "rows.csv.partial", "rows", "growing.csv.partial"):
        (tmp_path / file).touch()
    (tmp_path / "folder").mkdir()
    for name, message in {
        "rows.txt": "no known ending",
        "rows.csv.partial": "no known ending",
        "rows": "no known ending",
        "absent.jsonl": "No such file",
        "growing.csv": r"No such file: .*growing\.csv yet; growing\.csv\.partial is being written, and only \.jsonl",
        "folder": "holds no parts",
    }.items():
        with pytest.raises(UsageError, match=message):
            read(tmp_path / name)
    with pytest.raises(UsageError, match=r"only \.jsonl can be read while it grows"):
        next(follow_rows(write(tmp_path / "other.csv", ROWS), interval=0))
    with pytest.raises(UsageError, match="is not a file"):
        next(follow_rows(write(tmp_path / "parts", ROWS), interval=0))
