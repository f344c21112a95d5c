"""Sets of images with a name on the command line: NAME=DIR, where DIR is any input."""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import typer

from diffood.calibration.scored_files import IND
from diffood.errors import UsageError
from diffood.runtime.printable import is_control_character


@dataclass(frozen=True)
class NamedSet:
    """A set as typed."""

    name: str
    images: str


def sets_option(text: str) -> Any:
    """A repeatable option for OOD sets, with this help."""
    return typer.Option(metavar="NAME=DIR", parser=_read_set, help=text)


def _read_set(text: str) -> NamedSet:
    name, _, images = text.partition("=")
    if not name or not images:
        raise typer.BadParameter(f"{text!r} is not of the form NAME=DIR.")
    if name == IND:
        raise typer.BadParameter(f"{text!r}: the name {IND!r} is that of the in-distribution images; choose another.")
    if any(map(is_control_character, name)):
        raise typer.BadParameter(f"{text!r} has control characters in its name, which tables cannot show.")
    return NamedSet(name, images)


def collect_sets(*given: list[NamedSet] | None, reserved: Container[str] = ()) -> dict[str, tuple[str, ...]]:
    """Inputs by the name of their set, of one or more options; UsageError for a name that occurs twice or is taken."""
    sets: dict[str, tuple[str, ...]] = {}
    for one in (one for sets_of_option in given for one in sets_of_option or ()):
        if one.name in reserved:
            raise UsageError(f"An OOD set cannot be named {one.name!r}; give it another name.")
        if one.name in sets:
            raise UsageError(f"Two OOD sets are named {one.name!r}; give each set another name.")
        sets[one.name] = (one.images,)
    return sets
