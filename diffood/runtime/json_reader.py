"""Reads JSON, everywhere in this program: no key twice, no number that is none."""

import json
import math
from collections import Counter
from typing import Any, NoReturn

LONGEST_KEY = 200  # characters of a key shown in a message
MOST_VALUES = 8_000_000
"""Of one text: the largest record is the calibration of two million images, with a score, a class and a hash each."""
MOST_CONTAINERS = 500_000
"""Lists and objects of one text, of which each takes a hundred bytes and more: a record has some thousands."""


def parse_json(data: bytes, *, finite: bool = True) -> Any:
    """The content of JSON in UTF-8; the only reader of JSON, so that no two parts of this program read it differently.

    Args:
        data: The bytes.
        finite: Whether Infinity, NaN and numbers beyond float64 are refused. diffusers writes them into its configs.

    Raises:
        ValueError: It is not JSON, an object has a key twice, or it has more values than any file that is read.
    """
    _require_few_values(data)
    twice: list[str] = []  # of two values for one key each reader would take the one it likes

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice.append(Counter(key for key, _ in pairs).most_common(1)[0][0])
        return found

    try:
        content = json.loads(data.decode(), object_pairs_hook=make_object, **(_FINITE if finite else {}))
    except RecursionError:
        raise ValueError("it is not JSON: it is nested too deeply") from None
    except ValueError as error:  # of bytes, of JSON, of a number with thousands of digits
        raise ValueError(f"it is not JSON: {str(error).partition(';')[0]}") from None
    if twice:
        raise ValueError(f"the key {twice[0][:LONGEST_KEY]!r} occurs twice")
    return content


def _require_few_values(data: bytes) -> None:
    """Raise ValueError for more values than any record has: as objects they take gigabytes.

    Commas and brackets in texts count as well, so that this costs no parsing.
    """
    containers = data.count(b"[") + data.count(b"{")
    if containers > MOST_CONTAINERS:
        raise ValueError(f"it has {containers} lists and objects where at most {MOST_CONTAINERS} are allowed")
    values = data.count(b",") + containers
    if values > MOST_VALUES:
        raise ValueError(f"it has {values} values where at most {MOST_VALUES} are allowed")


def parse_object(data: bytes, *, finite: bool = True) -> dict[str, Any]:
    """The same for JSON that must be an object. Raises ValueError for anything else too."""
    content = parse_json(data, finite=finite)
    if not isinstance(content, dict):
        raise ValueError(f"it is not a JSON object but a {type(content).__name__}")  # noqa: TRY004 - of a file, not a call
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:80]} is beyond the range of float64")
    return number


_FINITE: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _parse_finite}
