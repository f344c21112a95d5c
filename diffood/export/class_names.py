"""Reads a file of class names, and says which names occur more than once."""

from collections.abc import Sequence
from pathlib import Path

from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import MAX_CLASSES
from diffood.runtime.records import MAX_NAME

SHOWN = 5
MAX_BYTES = 2**24


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a text file, one per line, whatever ends the lines; a byte order mark is not part of the first.

    Raises:
        UsageError: The file cannot be read, is not UTF-8 text, or has more or longer names than a bundle may have.
    """
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size > MAX_BYTES):
            raise UsageError(f"{path} is not a file of at most {MAX_BYTES} bytes; give one with a class name per line.")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The class names in {path} cannot be read as UTF-8 text ({error}); save the file as UTF-8."
        ) from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) > MAX_CLASSES or max(map(len, names), default=0) > MAX_NAME:
        raise UsageError(
            f"{path} has {len(names)} class names, the longest of {max(map(len, names))} characters, where at most "
            f"{MAX_CLASSES} of {MAX_NAME} are possible; shorten it."
        )
    return names


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
