"""Attack: names and column names that act on a terminal or end a line where rows are read as text."""

import io
from pathlib import Path

import pytest

from diffood.runtime.images.decode import DEFAULT_LIMITS
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.tables import list_table
from diffood.runtime.records import is_control_character
from diffood.serving.rows.formats.json_lines import JsonLines
from diffood.serving.rows.row import Row

NAMES = ("\x1b[2J", "\x9b2J", "\x85", "\u2028", "\u2029", "\u202egpj.exe", "\u2066", "\x7f", "\x00", "\r")


def test_json_lines_have_no_character_that_acts_and_give_the_name_back() -> None:
    for name in NAMES:
        row = Row(f"猫{name}.png", "", "rejected", error=name)
        line = JsonLines().encode_row(row)
        text = line.decode().removesuffix("\n")
        assert not any(map(is_control_character, text)), ascii(name)
        assert "猫" in text
        assert list(JsonLines().read_file(io.BytesIO(line), Path("rows.jsonl"))) == [row]


def test_no_column_or_type_of_a_table_acts_on_a_terminal(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    for name in NAMES[:-2]:
        for column, kind in (("other" + name, pa.int64()), ("image", pa.struct([("x" + name, pa.int64())]))):
            pq.write_table(pa.table({column: pa.array([None], kind)}), path)
            [item] = list_table(str(path), "t", ReadOptions(DEFAULT_LIMITS))
            assert not any(map(is_control_character, item.reason)), ascii(name)  # type: ignore[attr-defined]
