"""Names of the files in a folder of parts.

Names of files that are not complete parts begin with "_" or ".", which pyarrow, Spark and others ignore, so that the
folder is a dataset to them at any time.
"""

import re
from pathlib import Path

from diffood.serving.rows.formats.json_lines import PARTIAL
from diffood.serving.rows.formats.registry import FORMATS

JOURNAL = "_journal"
SUMMARY = "_summary.json"

_NAME = re.compile(rf"part-(\d{{6,}})\.(?:{'|'.join(FORMATS)})|_part-(\d{{6,}})\.jsonl{re.escape(PARTIAL)}")


def part_name(number: int, format_name: str) -> str:
    """Name of a complete part."""
    return f"part-{number:06d}.{format_name}"


def open_part_name(number: int) -> str:
    """Name of the part that is being written: JSON Lines, whatever the format of the complete ones."""
    return f"_part-{number:06d}.jsonl{PARTIAL}"


def find_part(folder: Path, number: int) -> Path | None:
    """The complete part of this number, else the open one, else None."""
    names = (*(part_name(number, known) for known in FORMATS), open_part_name(number))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def list_parts(folder: Path) -> dict[Path, int]:
    """Every part, complete or open, with its number."""
    names = ((path, _NAME.fullmatch(path.name)) for path in (folder.iterdir() if folder.is_dir() else ()))
    return {path: int(found[1] or found[2]) for path, found in names if found}
