"""Base classes of the records in files: no unknown field, no infinite number, no control characters."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from diffood.errors import DiffoodError
from diffood.runtime.printable import escape_for_terminal, is_control_character


def one_line(said: object) -> str:
    """What a library says, such as its error, in one printable line: it may quote a hostile file."""
    return escape_for_terminal(" ".join(str(said).split()))


def _require_printable(text: str) -> str:
    if any(map(is_control_character, text)):
        raise ValueError("it contains control characters, which may not be printed")
    return text


Text = Annotated[str, AfterValidator(_require_printable)]
"""Text of a file that may be hostile, and that is printed: control characters are refused."""


MAX_NAME = 1000  # characters; some classes of ImageNet are named by all their synonyms
Name = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_require_printable)]
"""Such a text that is written into every row."""


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
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as invalid:
        reason = first_problem(invalid)
    else:
        return
    raise error(f"{what} is invalid: {reason}; {remedy}.")


OWN_PROBLEM = "Value error, "
"""What pydantic writes before the message of a ValueError; says nothing to a user."""


def first_problem(error: ValueError) -> str:
    """The first thing pydantic found wrong, in one line: where, what, and the value."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False)[0]
    # Keys come from the file.
    where = escape_for_terminal(".".join(str(part) for part in problem["loc"])[:MAX_PLACE]) or "the file"
    given = "" if problem["type"] == "missing" or not problem["loc"] else f", got {_beginning(problem['input'])!r}"
    return f"{where}: {problem['msg'].removeprefix(OWN_PROBLEM)}{given}"


def _beginning(value: object) -> str:
    try:
        return str(value)[:80]
    except RecursionError:
        return "a list or object that is nested deeply"
