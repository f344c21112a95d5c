"""What a run left: its journal, and rows as JSON Lines, CSV and Parquet."""

import json

import numpy as np
from json_mutations import change_record
from oracle import Scratch, attempt

from diffood.runtime.bundle.files import read_record
from diffood.serving.output.journal import Journal
from diffood.serving.output.summary import SummaryFile
from diffood.serving.rows.readers import read_rows

SCRATCH = Scratch()
KINDS = ("journal", "rows.jsonl", "rows.csv", "rows.jsonl.summary.json")


def use(data: bytes) -> None:
    """The first byte says what the rest is."""
    if not data:
        return
    name = KINDS[data[0] % len(KINDS)]
    path = SCRATCH.file(name, data[1:])
    if name == "journal":
        journal = Journal(path)
        try:
            attempt(lambda: journal.read().rows)
        finally:
            journal.close()
    elif name.endswith(".summary.json"):
        attempt(lambda: read_record(SCRATCH.path, name, SummaryFile, limit=2**20))
    else:
        attempt(lambda: sum(map(len, read_rows(path))))


def change(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage what one line says."""
    lines = data[1:].splitlines(keepends=True)
    if lines:
        number = int(rng.integers(len(lines)))
        try:
            content = json.loads(lines[number])
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            lines[number] = change_record(lines[number], rng, seal=False) + b"\n"
        elif len(lines) > 1:
            lines.insert(number, lines[int(rng.integers(len(lines)))])
    return data[:1] + b"".join(lines)
