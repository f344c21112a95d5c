"""What all records of a bundle's files have in common: no unknown field, no infinite number, no text that can act."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from diffood.errors import DiffoodError

# Control characters, halves of a character, and what ends a line. Other invisible characters stay: without the
# joiners of Persian, Hindi and emoji, and the wide or unbreakable spaces of others, their names cannot be written.
_ACTING = frozenset(("Cc", "Cs", "Zl", "Zp"))
_TURNING = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))  # the line, for the eye alone


def is_control_character(letter: str) -> bool:
    """Whether a character does something to a terminal, or to the order in which a line is read, when printed."""
    return unicodedata.category(letter) in _ACTING or unicodedata.bidirectional(letter) in _TURNING


def escape_for_terminal(text: str) -> str:
    """A text of unknown origin as it can be printed: control characters become escapes."""
    return "".join(
        letter.encode("unicode_escape").decode() if is_control_character(letter) else letter for letter in text
    )


def _require_printable(text: str) -> str:
    if any(map(is_control_character, text)):
        raise ValueError("it contains control characters, which may not be printed")
    return text


Text = Annotated[str, AfterValidator(_require_printable)]
"""Text of a file that may be hostile, and that is printed: control characters are refused."""


Share = Annotated[float, Field(ge=0, le=1)]
"""A share of 1."""


class Record(BaseModel):
    """A record of a bundle's file: frozen; a field it does not know, or a number that is not finite, is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GrownRecord(Record):
    """A record with fields that it did not always have: one of `added` that is None is left out when it is written.

    So what has no use for them keeps the bytes, and the hash, that it had before.
    """

    added: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name not in self.added or value is not None}


MAX_PLACE = 200  # characters of a key shown in a message


@contextmanager
def explain_invalid(what: str, remedy: str, error: type[DiffoodError]) -> Iterator[None]:
    """Turn a ValueError, pydantic's among them, into an `error` that names what is invalid, why, and the remedy."""
    try:
        yield
    except ValueError as invalid:
        raise error(f"{what} is invalid: {first_problem(invalid)}; {remedy}.") from None


def first_problem(error: ValueError) -> str:
    """One line for the first thing pydantic found wrong: where, what, and the value given."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])[:MAX_PLACE] or "the file"
    if not where.isprintable():  # keys come from the file, and must not reach a terminal as escapes
        where = where.encode("unicode_escape").decode()
    given = "" if problem["type"] == "missing" or not problem["loc"] else f", got {str(problem['input'])[:80]!r}"
    return f"{where}: {problem['msg']}{given}"
