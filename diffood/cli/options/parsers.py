"""Values of options that are more than one word, number or path, read from what was typed."""

from pathlib import Path
from typing import get_args

import typer

from diffood.runtime.backends import AUTO, require_backend_choice
from diffood.runtime.bundle.bundle import Precision
from diffood.runtime.writable import require_writable


class Words(tuple[str, ...]):
    """Words typed with commas between them."""

    __slots__ = ()


class Precisions(tuple[Precision, ...]):
    """Precisions typed with commas between them, in the order of `Precision`."""

    __slots__ = ()


class Numbers(tuple[float, ...]):
    """Numbers typed with commas between them."""

    __slots__ = ()


class ImageSize(tuple[int, int]):
    """Height and width of an image in pixels, typed as HxW, or as one number for a square."""

    __slots__ = ()


def backend_choice(text: str) -> str:
    """Read the name of a backend, or auto."""
    try:
        return require_backend_choice(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}, and {AUTO}.") from None


def words(text: str) -> Words:
    """Read words with commas between them, such as jump,energy."""
    return Words(word.strip() for word in text.split(","))


def precisions(text: str) -> Precisions:
    """Read precisions with commas between them, such as fp32,int8."""
    known = get_args(Precision)
    typed = [word.strip().lower() for word in text.split(",")]
    if unknown := [word for word in typed if word not in known]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(known)}.")
    return Precisions(precision for precision in known if precision in typed)


def numbers(text: str) -> Numbers:
    """Read numbers with commas between them, such as 0.485,0.456,0.406."""
    try:
        return Numbers(float(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers, such as 0.485,0.456,0.406.") from None


def image_size(text: str) -> ImageSize:
    """Read a size: 224 for a square, or 192x256, height first."""
    sides = text.lower().split("x")
    try:
        height, width = (int(side) for side in (sides * 2 if len(sides) == 1 else sides))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a size; give one number, 224, or HxW, 192x256.") from None
    return ImageSize((height, width))


def png_file(text: str) -> Path:
    """Read the path of a picture, and check that one can be drawn, before the work, which may take long."""
    from diffood.report.requirements import require_pictures

    path = Path(text)
    if path.suffix != ".png":
        raise typer.BadParameter(f"{path.name!r} does not end in .png.")
    require_pictures(path)
    return path


def new_folder(text: str) -> Path:
    """Read the path of a folder to write to, and check that this can be done."""
    path = Path(text)
    require_writable(path, "The folder", folder=True)
    return path


def html_file(text: str) -> Path:
    """Read the path of a report, and check that one can be made."""
    from diffood.report.requirements import require_report

    path = Path(text)
    require_report(path)
    return path
