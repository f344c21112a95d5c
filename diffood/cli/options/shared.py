"""Options that several verbs share, and what they say about images that were set aside."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from diffood.cli.options.parsers import backend_choice
from diffood.cli.printing import print_messages
from diffood.errors import EXIT_SET_ASIDE
from diffood.runtime.backends import AUTO, BACKENDS
from diffood.runtime.bundle.bundle import Precision
from diffood.runtime.sessions.choice import PrecisionChoice

INPUTS = "A folder, 'glob', @list.txt, - (paths), .tar, .zip, .parquet or URL."  # what every option of images takes

MOST_NAMED = 20  # files that could not be used; people read them, and --json and reports have more


def images_option(text: str) -> Any:
    """A repeatable option for in-distribution images with this help, by either name that verbs have for them."""
    return typer.Option("--ind", "--images", metavar="INPUT", help=f"{text} {INPUTS} Repeatable.")


BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder, as `diffood export` makes it.")]
BackendName = Annotated[
    str,
    typer.Option(
        "--backend",
        parser=backend_choice,
        autocompletion=lambda: [AUTO, *BACKENDS],
        metavar=f"[{'|'.join((AUTO, *BACKENDS))}]",
        help="auto: the best that runs here and is calibrated.",
        rich_help_panel="Machine",
    ),
]
PrecisionName = Annotated[
    PrecisionChoice | None,
    typer.Option(
        "--precision",
        help="auto: the fastest that `diffood verify` let pass; without: what was calibrated.",
        rich_help_panel="Machine",
    ),
]
FixedPrecision = Annotated[Precision, typer.Option("--precision", rich_help_panel="Machine")]
Batch = Annotated[int, typer.Option(help="Images that the engine works on at once.", rich_help_panel="Machine")]
Threads = Annotated[int, typer.Option(help="Threads of the engine; 0: all cores.", rich_help_panel="Machine")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines on standard output.")]


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings on standard error."""
    for warning in warnings:
        print_messages(f"warning     {warning}")


def print_set_aside(set_aside: Sequence[tuple[str, str]]) -> None:
    """Name the files that could not be used, the first ones of many, with the reasons, on standard error."""
    for identity, reason in set_aside[:MOST_NAMED]:
        print_messages(f"set aside   {identity!r}: {reason}")
    if len(set_aside) > MOST_NAMED:
        print_messages(f"set aside   and {len(set_aside) - MOST_NAMED} more files")


def exit_if_set_aside(set_aside: Sequence[tuple[str, str]]) -> None:
    """Name the files that could not be used; exit with 3 if there are any."""
    print_set_aside(set_aside)
    if set_aside:
        raise typer.Exit(EXIT_SET_ASIDE)


def exit_if_sets_aside(sets: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """As `exit_if_set_aside`, for several sets of images by their names."""
    exit_if_set_aside([(f"{name}: {identity}", reason) for name, files in sets.items() for identity, reason in files])
