"""Values of options that are more than one word, number or path, read from what was typed."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import typer

from diffood.runtime.bundle.bundle import Precision
from diffood.runtime.records import is_control_character


@dataclass(frozen=True)
class NamedSet:
    """A set of images with a name, typed as NAME=DIR."""

    name: str
    images: str


class Words(tuple[str, ...]):
    """Words typed with commas between them."""

    __slots__ = ()


class Precisions(tuple[Precision, ...]):
    """Precisions typed with commas between them, in the order of `Precision`."""

    __slots__ = ()


def named_set(text: str) -> NamedSet:
    """Read NAME=DIR. The name is shown in tables and may not act on a terminal."""
    name, _, images = text.partition("=")
    if not name or not images or name == "ind":
        raise typer.BadParameter(f"{text!r} is not NAME=DIR with a name other than 'ind'.")
    if any(map(is_control_character, name)):
        raise typer.BadParameter(f"{text!r} has control characters in its name, which tables cannot show.")
    return NamedSet(name, images)


def words(text: str) -> Words:
    """Read words with commas between them, such as jump,energy."""
    return Words(word.strip() for word in text.split(","))


def precisions(text: str) -> Precisions:
    """Read precisions with commas between them, such as fp32,int8."""
    known = get_args(Precision)
    typed = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in typed if word not in known]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(known)}.")
    return Precisions(precision for precision in known if precision in typed)


def png_file(text: str) -> Path:
    """Read the path of a picture, before the work, which may take long."""
    path = Path(text)
    if path.suffix != ".png":
        raise typer.BadParameter(f"{path.name!r} does not end in .png.")
    return path
