"""Rows, and outputs of made-up runs to write them into."""

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from made_up import fingerprint_of

from diffood.serving.output.base import Output, OutputMode
from diffood.serving.output.journal import RunRecord
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.open import open_output
from diffood.serving.output.summary import Summary, describe_run
from diffood.serving.rows.formats.registry import FORMATS
from diffood.serving.rows.readers import read_rows
from diffood.serving.rows.row import Row

ROWS = [
    Row("a.png", "00" * 32, "ok", 0.1 + 0.2, 1 / 3, 1.5, False, 3, "coat", 0.75, 1, 16),
    Row(
        "ü🙂/名前.png", "11" * 32, "ok", 1e-300, 0.0625, 1.5, True, 0, 'T-shirt, "top"', 1.0, 1, 16, "resized from 9x9"
    ),
    Row("broken\nname\r'\".png", "", "rejected", error="The file is empty (0 bytes); copy it again, please."),
    Row("nan.png", "22" * 32, "invalid", math.nan, 0.0625, 1.5, True, 0, "", math.inf, 1, 16, error="not finite"),
    Row("=1+1.png", "33" * 32, "ok", -0.0, 1.0, -2.5, False, 9, "\\xff", -math.inf, 1, 0, "\u2028"),
]
MANY = [
    Row(f"{index:03d}.png", f"{index:064x}", "ok", index / 7, 0.5, 1.5, index > 10, 3, "coat") for index in range(40)
]
NAMES = [*(f"rows.{name}" for name in FORMATS), "rows"]


def run_of(layout: OutputLayout, **changes: Any) -> RunRecord:
    """The record of a made-up run to an output; `changes` are fields of it."""
    fields: dict[str, Any] = {
        "diffood": "0",
        "fingerprint": fingerprint_of(),
        "calibration_sha256": "0" * 64,
        "batch": 8,
        "threads": 1,
        "max_bytes": 1000,
        "max_pixels": 1000,
        "decode_timeout": 20.0,
        "image_column": "image",
        "id_column": "",
        "rows": layout.format.name,
        "part_rows": 2,
    }
    return RunRecord(**fields | changes)


def open_at(path: Path, mode: OutputMode = "new", **changes: Any) -> Output:
    """An output of a made-up run, to be entered."""
    layout = OutputLayout.of(path, completed_last="fdr" in changes)
    return open_output(layout, run_of(layout, **changes), mode)


def finish(output: Output) -> None:
    """Say that all rows were written; the summary is the same for all runs of one record."""
    if output.run.fdr is not None:
        output.select(output.run.fdr)
    nothing: dict[str, Any] = dict.fromkeys(Summary.model_fields, 0)
    nothing |= {"state": "finished", "reasons": {}, "examples": {}, "left_out": {}, "conversions": {}}
    nothing |= {"certificate": "", "promise": None}
    output.finish(describe_run(Summary(**nothing), "none", output.run))


def write(path: Path, rows: Sequence[Row], **changes: Any) -> Path:
    """Write rows into an output and finish it."""
    with open_at(path, **changes) as output:
        for row in rows:
            output.write(row)
        finish(output)
    return path


def read(path: Path) -> list[Row]:
    """All rows of a file or a folder of parts."""
    return [row for block in read_rows(path) for row in block]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_journal(folder: Path) -> dict[str, bytes]:
    """Every file below a folder except journals, in which the checkpoints differ."""
    return {name: data for name, data in contents(folder).items() if "journal" not in name}


def resume(path: Path, rows: Sequence[Row], *, ends: bool = True, **changes: object) -> None:
    """Resume a run over these rows as `serve-batch` does: skip those that exist, write the others."""
    with open_at(path, "resume", **changes) as output:
        if output.finished:
            return
        done = list(output.done())
        for found, row in zip(done, rows, strict=False):
            assert found is None or replace(found, selected=None) == row
        for row in [row for found, row in zip(done, rows, strict=False) if found is None] + list(rows[len(done) :]):
            output.write(row)
        if ends:
            finish(output)


def run_python(program: str, *words: object) -> str:
    """Standard output of a program in a process of its own, which finds the modules of the tests."""
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
