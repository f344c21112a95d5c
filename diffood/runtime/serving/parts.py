"""How the files of a folder of parts are called, and which there are."""

import re
from pathlib import Path

from diffood.runtime.serving.sinks import FORMATS

PARTIAL = ".partial"  # until a file is whole
OPEN_ENDING = ".jsonl.partial"  # of the part that is being written, whatever the format of the whole ones
JOURNAL = "journal.jsonl"

_NAME = re.compile(rf"part-(\d{{6,}})(\.(?:{'|'.join(FORMATS)})|{re.escape(OPEN_ENDING)})(\.tmp)?")


def part_stem(number: int) -> str:
    """A part's name without its ending."""
    return f"part-{number:06d}"


def find_part(folder: Path, number: int) -> Path | None:
    """The whole part of a number, or else the open one, or None."""
    endings = (*(f".{kind}" for kind in FORMATS), OPEN_ENDING)
    paths = (folder / f"{part_stem(number)}{ending}" for ending in endings)
    return next((path for path in paths if path.is_file()), None)


def own_files(folder: Path) -> list[Path]:
    """Every file that is a part, whole, open, or not yet given its name."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []
