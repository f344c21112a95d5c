"""Attack: names and column names that act on a terminal, end a line, or are a formula, where rows are read as text."""

import csv
import io
import re
import unicodedata
from pathlib import Path

import pytest

from diffood.runtime.images.decode import DEFAULT_LIMITS
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.tables import list_table
from diffood.runtime.printable import escape_for_terminal, is_hidden
from diffood.serving.rows.formats.comma_separated import CommaSeparated, guard_cell
from diffood.serving.rows.formats.json_lines import JsonLines
from diffood.serving.rows.row import Row

NAMES = (
    *("\x1b[2J", "\x9b2J", "\x85", "\u2028", "\u2029", "\u202egpj.exe", "\u2066", "\x7f", "\u200e", "\u061c", "\u200b"),
    *("\ufeff", "\u2060", "\u3164", "\U000e0041", "\x00", "\r"),
)
FORMULAS = (
    *(
        "=cmd|' /C calc'!A0",
        "+1",
        "-1+1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        " =1",
        "\u3000=1",
        "＝1",
        "＋1",
        "－1",
        "＠x",
        "−1",
    ),
    *("'=1", '"=1', "\ufeff=1", "\u200b=1", "a;=1", 'a; "=1', "a;\t=1", "a\n=1", "﹦1"),
)
QUOTING = (
    *("'", "''", "'a", "it's", "\\u003d", "'\\x", "a=b", "a-b.png", "a;b", 'say "a"', "C:\\new\\x1b.png"),
    "پیراهن\u200cها",
)


def test_json_lines_have_no_character_that_acts_and_give_the_name_back() -> None:
    for name in NAMES:
        row = Row(f"猫{name}.png", "", "rejected", error=name)
        line = JsonLines().encode_row(row)
        text = line.decode().removesuffix("\n")
        assert not any(map(is_hidden, text)), ascii(name)
        assert "猫" in text
        assert list(JsonLines().read_file(io.BytesIO(line), Path("rows.jsonl"))) == [row]


def test_no_column_or_type_of_a_table_acts_on_a_terminal(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    for some in (NAMES[:8], NAMES[8:-2]):  # few enough that the reason quotes them all
        fields = [(f"x{name}", pa.int64()) for name in some]
        for columns in (fields, [("image", pa.struct(fields))]):
            pq.write_table(pa.table({column: pa.array([None], kind) for column, kind in columns}), path)
            [item] = list_table(str(path), "t", ReadOptions(DEFAULT_LIMITS))
            reason = item.reason  # type: ignore[attr-defined]
            assert not any(map(is_hidden, reason)), ascii(reason)
            assert escape_for_terminal(f"x{some[-1]}") in reason


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet may take a cell for one; a number is none."""
    shown = unicodedata.normalize("NFKC", cell).lstrip('" ')
    return shown.startswith(tuple("=+-−@")) and not re.fullmatch(r"-?[\d.]+", cell)


def test_no_cell_of_a_csv_is_a_formula_or_acts_and_each_gives_its_text_back() -> None:
    written = CommaSeparated()
    names = [*FORMULAS, *QUOTING, *(f"猫{name}.png" for name in NAMES)]
    rows = [Row(f"{number} {name}", "", "rejected", note=name, error=name) for number, name in enumerate(names)]
    rows += [Row(name, "", "ok", -1.5, 0.5, -2.5, True, 0, name, 0.5, 1) for name in names]
    data = written.encode(rows)
    assert list(written.read_file(io.BytesIO(data), Path("rows.csv"))) == rows
    lines = data.decode().split("\n")[:-1]
    assert len(lines) == 1 + len(rows)
    for delimiter in ",;\t|":  # a spreadsheet takes the one of its country
        cells = [cell for row in csv.reader(lines, delimiter=delimiter) for cell in row]
        assert not [cell for cell in cells if is_formula(cell)]
    assert not any(map(is_hidden, "".join(lines)))


def test_an_ordinary_cell_of_a_csv_is_the_text_itself() -> None:
    for text in (
        "camera/2026-01-05/a b.png",
        "C:\\new\\x1b.png",
        'T-shirt, "top"',
        "it's",
        "a=b",
        "x; y",
        "猫",
        "",
        "1",
    ):
        assert guard_cell(text) == text
    assert guard_cell("=1\n\\") == r"'=1\n\\"
    assert guard_cell("a; =1") == r"'a; \u003d1"
