"""What all records of a bundle's files have in common: no unknown field, no infinite number, no text that can act."""

import unicodedata
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

# Control characters, halves of a character, and what ends a line. Other invisible characters stay: without the
# joiners of Persian, Hindi and emoji, and the wide or unbreakable spaces of others, their names cannot be written.
_ACTING = frozenset(("Cc", "Cs", "Zl", "Zp"))
_TURNING = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))  # the line, for the eye alone


def acts(letter: str) -> bool:
    """Whether a character does something to a terminal, or to the order in which a line is read, when printed."""
    return unicodedata.category(letter) in _ACTING or unicodedata.bidirectional(letter) in _TURNING


def shown(text: str) -> str:
    """A text of unknown origin as it can be printed: characters that act become escapes."""
    return "".join(letter.encode("unicode_escape").decode() if acts(letter) else letter for letter in text)


def _require_shown(text: str) -> str:
    if any(map(acts, text)):
        raise ValueError("it holds control characters, which may not be printed")
    return text


Text = Annotated[str, AfterValidator(_require_shown)]
"""Of a file that may be hostile, and printed: refused where it holds characters that act."""


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


def first_problem(error: ValidationError) -> str:
    """One line for the first thing pydantic found wrong: where, what, and the value given."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])[:MAX_PLACE] or "the file"
    if not where.isprintable():  # keys come from the file, and must not reach a terminal as escapes
        where = where.encode("unicode_escape").decode()
    given = "" if problem["type"] == "missing" or not problem["loc"] else f", got {str(problem['input'])[:80]!r}"
    return f"{where}: {problem['msg']}{given}"
