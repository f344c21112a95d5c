"""How the files of a folder of parts are called, and which there are.

What is no whole part begins with "_" or ".", which pyarrow, Spark and others pass over: to them it is a dataset.
"""

import re
from pathlib import Path

from diffood.serving.rows.formats import FORMATS, Format

PARTIAL = ".partial"  # until a file is whole
JOURNAL = "_journal"
SUMMARY = "_summary.json"

_NAME = re.compile(rf"part-(\d{{6,}})\.(?:{'|'.join(FORMATS)})|_part-(\d{{6,}})\.jsonl{re.escape(PARTIAL)}")


def part_name(number: int, kind: Format) -> str:
    """A part that is whole."""
    return f"part-{number:06d}.{kind}"


def open_part_name(number: int) -> str:
    """The part that is being written, as JSON lines whatever the format of the whole ones."""
    return f"_part-{number:06d}.jsonl{PARTIAL}"


def find_part(folder: Path, number: int) -> Path | None:
    """The whole part of a number, or else the open one, or None."""
    names = (*(part_name(number, kind) for kind in FORMATS), open_part_name(number))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def own_files(folder: Path) -> dict[Path, int]:
    """Every part, whole or open, and its number."""
    names = ((path, _NAME.fullmatch(path.name)) for path in (folder.iterdir() if folder.is_dir() else ()))
    return {path: int(found[1] or found[2]) for path, found in names if found}
