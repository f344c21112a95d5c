"""Attack: JSON that two readers understand differently: a key twice, a number that is none, text that is not JSON."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import diffood
from diffood.errors import DiffoodError, UsageError
from diffood.export.sources.json_config import read_config
from diffood.export.sources.unets.scheduler import load_schedule
from diffood.runtime.child import ChildEnded, parse_fields
from diffood.runtime.json_reader import parse_json
from diffood.serving.output.journal import Journal
from diffood.serving.rows.formats.json_lines import JsonLines
from diffood.serving.web.runtime import find_runtime

HOUSE = Path(diffood.__file__).parent
READER = HOUSE / "runtime" / "json_reader.py"
OTHER_READERS = {"load", "loads", "JSONDecoder", "raw_decode"}  # of json; of pydantic:
PYDANTIC_READERS = {"model_validate_json", "validate_json", "parse_raw", "parse_file"}


def other_readers(tree: ast.Module) -> set[str]:
    """What in a module reads JSON by another reader than ours."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("json", "orjson", "ujson"):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.Attribute):
            of_json = isinstance(node.value, ast.Name) and node.value.id == "json" and node.attr in OTHER_READERS
            found |= {node.attr} if of_json or node.attr in PYDANTIC_READERS else set()
    return found


def test_nothing_reads_json_but_the_one_reader() -> None:
    for path in HOUSE.rglob("*.py"):
        if path != READER:
            assert not other_readers(ast.parse(path.read_text())), path
    assert other_readers(ast.parse(READER.read_text())) == {"loads"}  # what is looked for is found


def read_journal(path: Path) -> object:
    journal = Journal(path)
    try:
        return journal.read()
    finally:
        journal.close()


def read_rows(path: Path) -> list[object]:
    with path.open("rb") as file:
        return list(JsonLines().read_file(file, path))


READERS: dict[str, Callable[[Path], object]] = {  # each file of JSON that is not a record of a bundle, by its name
    "config.json": read_config,
    "scheduler_config.json": lambda path: load_schedule(path, path),
    "rows.jsonl": read_rows,
    "journal": read_journal,
    "package.json": lambda path: find_runtime(path.parent),
}
HOSTILE = {
    "a key twice": b'{"a": 1, "a": 2}\n',
    "a key twice, once escaped": b'{"a": 1, "\\u0061": 2}\n',
    "a key twice within": b'{"x": [{"a": 1, "a": 1}]}\n',
    "cut off": b'{"a": \n',
    "a list": b"[1]\n",
    "UTF-16": '{"a": 1}\n'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}\n',
    "not UTF-8": b'{"a": "\xff"}\n',
    "deep": b"[" * 100_000 + b"\n",
    "a long number": b'{"a": ' + b"9" * 100_000 + b"}\n",
}


def test_every_file_of_json_is_read_in_one_way(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, read in READERS.items():
        for case, data in HOSTILE.items():
            with subtests.test(name=name, case=case):
                path = tmp_path / name
                path.write_bytes(data)
                with pytest.raises(DiffoodError) as refused:
                    read(path)
                assert name in str(refused.value)
                assert str(refused.value).isprintable()
                assert len(str(refused.value)) < 500


def test_what_a_child_sends_is_read_in_the_same_way(subtests: pytest.Subtests) -> None:
    for case, data in HOSTILE.items():
        with subtests.test(case=case), pytest.raises(ChildEnded):
            parse_fields(data)


def test_numbers_that_are_none(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for text in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", '[1, {"a": 1e999}]'):
        with subtests.test(text=text):
            with pytest.raises(ValueError, match=r"is not a number of JSON|is beyond the range of float64"):
                parse_json(text.encode())
            (tmp_path / "rows.jsonl").write_text(f'{{"score": {text}}}\n')
            with pytest.raises(UsageError, match=r"rows.jsonl, line 1 is invalid: it is not JSON"):
                read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "config.json").write_text('{"lambda_min_clipped": -Infinity}')  # as diffusers saves DPM-Solver's
    assert read_config(tmp_path / "config.json") == {"lambda_min_clipped": float("-inf")}
