"""Attack: engine.json is huge, deep, no JSON, lies about its types, or names a file outside its folder."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from attacks import undone
from planted_engine import plant_engine
from sealed import sealed

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import MAX_RECORD_BYTES, list_engines


def test_a_record_that_is_none_is_refused(victim: Path, subtests: pytest.Subtests) -> None:
    for case, data in {
        "empty": b"",
        "words": b"not json",
        "list": b"[]",
        "null": b"null",
        "bytes": b"\xff\xfe",
        "cut": b"{",
        "deep list": b"[" * 100_000,
        "deep object": b'{"a":' * 100_000,
        "long number": b"9" * 100_000,
    }.items():
        with subtests.test(case=case), undone(victim):
            (plant_engine(victim) / "engine.json").write_bytes(data)
            with pytest.raises(BundleError, match=r"engine.json is invalid: .*; remove that folder and build"):
                list_engines(open_bundle(victim))


def test_an_oversized_record_is_refused_unread(victim: Path) -> None:
    record = plant_engine(victim) / "engine.json"
    record.write_bytes(record.read_bytes() + b" " * MAX_RECORD_BYTES)
    with pytest.raises(BundleError, match=rf"bytes where at most {MAX_RECORD_BYTES} are allowed"):
        list_engines(open_bundle(victim))
    if os.name == "posix":
        os.truncate(record, 2**40)
        with pytest.raises(BundleError, match=rf"has {2**40} bytes"):
            list_engines(open_bundle(victim))


def test_an_engine_folder_without_a_record_is_refused(victim: Path) -> None:
    (plant_engine(victim) / "engine.json").unlink()
    with pytest.raises(BundleError, match=r"engine.json cannot be opened"):
        list_engines(open_bundle(victim))


def test_a_plan_named_outside_the_folder_is_refused(victim: Path, subtests: pytest.Subtests) -> None:
    for name in ["../stage1.plan", "/etc/passwd", "..", "", "a/b", "a\\b", "plan\n", "\0", "x" * 200]:
        with subtests.test(name=name), undone(victim):
            change(plant_engine(victim), lambda record: record["stages"][0].update(file=name))
            with pytest.raises(BundleError, match=r"is invalid: stages.0.file"):
                list_engines(open_bundle(victim))


def test_a_field_that_does_not_belong_is_refused(victim: Path, subtests: pytest.Subtests) -> None:
    for field in [
        {"format": "2"},
        {"library": "tensorflow"},
        {"precision": "fp4"},
        {"compute_capability": "8.6; rm"},
        {"compute_capability": 8.6},
        {"profile": {"smallest": 0, "usual": 1, "largest": 1}},
        {"profile": {"smallest": 1, "usual": 1, "largest": "many"}},
        {"options": {"tf32": ["no"]}},
        {"plugin_library": "evil.so"},
        {"stages": "all"},
        {"stages": []},
        {"plan": {"repeats": "many"}},
        {"plan_name": "a\x1b[2Jb"},
    ]:
        with subtests.test(field=field), undone(victim):
            change(plant_engine(victim), lambda record: record.update(field))
            with pytest.raises(BundleError, match=rf"is invalid: {next(iter(field))}"):
                list_engines(open_bundle(victim))


def test_an_engine_of_an_earlier_or_newer_diffood_is_to_be_built_again(victim: Path) -> None:
    folder = plant_engine(victim)
    for number in (1, 3):
        change(folder, lambda record, number=number: record.update(format=number))
        with pytest.raises(BundleError, match=r"format: this diffood reads format 2, got '\d'; remove that folder and"):
            list_engines(open_bundle(victim))


def test_fewer_engines_than_the_plan_has_stages_are_refused(victim: Path) -> None:
    change(plant_engine(victim), lambda record: record["stages"].pop())
    with pytest.raises(BundleError, match="1 engines for a plan of 2 stages"):
        list_engines(open_bundle(victim))


def test_a_plan_of_an_impossible_size_is_refused(victim: Path, subtests: pytest.Subtests) -> None:
    for size in [0, -1, 2**63, 1.5]:
        with subtests.test(size=size), undone(victim):
            change(plant_engine(victim), lambda record: record["stages"][0].update(size=size))
            with pytest.raises(BundleError, match=r"is invalid: stages.0.size"):
                list_engines(open_bundle(victim))


def change(folder: Path, apply: Any) -> None:
    """Let a function change the parsed record and write it back."""
    record = json.loads((folder / "engine.json").read_bytes())
    apply(record)
    (folder / "engine.json").write_bytes(sealed(record))
