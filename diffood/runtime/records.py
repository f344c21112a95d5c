"""Base classes of the records in files: no unknown field, no infinite number, no control characters."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from diffood.errors import DiffoodError

# Control characters, surrogates, and line separators. Other invisible characters are allowed: Persian, Hindi and emoji
# need joiners, other scripts need wide or non-breaking spaces.
_CONTROL = frozenset(("Cc", "Cs", "Zl", "Zp"))
_BIDI = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))  # reorder what is shown


def is_control_character(letter: str) -> bool:
    """Whether printing a character acts on a terminal or changes the order in which a line is read."""
    return unicodedata.category(letter) in _CONTROL or unicodedata.bidirectional(letter) in _BIDI


def escape_for_terminal(text: str) -> str:
    """A text of unknown origin, printable: control characters become escapes."""
    return "".join(
        letter.encode("unicode_escape").decode() if is_control_character(letter) else letter for letter in text
    )


def one_line(said: object) -> str:
    """What a library says, such as its error, in one printable line: it may quote a hostile file."""
    return escape_for_terminal(" ".join(str(said).split()))


def _require_printable(text: str) -> str:
    if any(map(is_control_character, text)):
        raise ValueError("it contains control characters, which may not be printed")
    return text


Text = Annotated[str, AfterValidator(_require_printable)]
"""Text of a file that may be hostile, and that is printed: control characters are refused."""


Share = Annotated[float, Field(ge=0, le=1)]
"""A share of 1."""


class Record(BaseModel):
    """A record in a file: frozen; unknown fields and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


MAX_PLACE = 200  # characters of a key shown in a message


@contextmanager
def explain_invalid(what: str, remedy: str, error: type[DiffoodError]) -> Iterator[None]:
    """Turn a ValueError, pydantic's among them, into an `error` that names what is invalid, why, and the remedy."""
    try:
        yield
    except ValueError as invalid:
        raise error(f"{what} is invalid: {first_problem(invalid)}; {remedy}.") from None


OWN_PROBLEM = "Value error, "
"""What pydantic writes before the message of a ValueError; says nothing to a user."""


def first_problem(error: ValueError) -> str:
    """The first thing pydantic found wrong, in one line: where, what, and the value."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])[:MAX_PLACE] or "the file"
    if not where.isprintable():  # keys come from the file and must not act on a terminal
        where = where.encode("unicode_escape").decode()
    given = "" if problem["type"] == "missing" or not problem["loc"] else f", got {str(problem['input'])[:80]!r}"
    return f"{where}: {problem['msg'].removeprefix(OWN_PROBLEM)}{given}"
