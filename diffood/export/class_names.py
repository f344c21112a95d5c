"""Reads a file of class names, and says which names occur more than once."""

from collections.abc import Sequence
from pathlib import Path

from diffood.errors import UsageError

SHOWN = 5


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a text file, one per line, whatever ends the lines; a byte order mark is not part of the first.

    Raises:
        UsageError: The file cannot be read, or is not UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The class names in {path} cannot be read as UTF-8 text ({error}); save the file as UTF-8."
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def describe_repeated_names(names: Sequence[str]) -> str:
    """A sentence about the names that several classes have; "" where there are none."""
    classes: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        classes.setdefault(name, []).append(index)
    repeated = [(name, found) for name, found in classes.items() if len(found) > 1]
    if not repeated:
        return ""
    shown = "; ".join(f"{name!r} is of classes {', '.join(map(str, found))}" for name, found in repeated[:SHOWN])
    more = f"; and {len(repeated) - SHOWN} more" if len(repeated) > SHOWN else ""
    return f"class names repeat: {shown}{more}. Rows cannot tell these classes apart by name."
