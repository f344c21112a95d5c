"""Options that several verbs share, and the detector they describe."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from diffood.errors import UsageError
from diffood.runtime.backends import AUTO, BACKENDS, require_backend_choice
from diffood.runtime.bundle.bundle import Precision
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import Combination
from diffood.runtime.method.schedule import Convention, Sampler
from diffood.runtime.method.witnesses.registry import WITNESSES
from diffood.runtime.sessions import choice
from diffood.runtime.sessions.choice import PrecisionChoice

PLAN_PANEL = "Plan"
INPUTS = "A folder, 'glob', @list.txt, - (paths), .tar, .parquet or URL."  # what every option of images takes

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder, as `diffood export` makes it.")]
PlanName = Annotated[str | None, typer.Option("--plan", help="Plan of the bundle.", rich_help_panel=PLAN_PANEL)]
StartTimes = Annotated[
    list[int] | None,
    typer.Option("--start-time", help="Start time; give it several times for several.", rich_help_panel=PLAN_PANEL),
]
Stride = Annotated[int | None, typer.Option(help="Noising steps one denoising step takes.", rich_help_panel=PLAN_PANEL)]
Repeats = Annotated[int | None, typer.Option(help="Noise draws an image.", rich_help_panel=PLAN_PANEL)]
Guidance = Annotated[float | None, typer.Option(help="The paper's beta; 0 turns it off.", rich_help_panel=PLAN_PANEL)]
SamplerName = Annotated[Sampler | None, typer.Option("--sampler", rich_help_panel=PLAN_PANEL)]
Schedule = Annotated[
    Convention | None,
    typer.Option(help="reference: the conventions of the paper's code.", rich_help_panel=PLAN_PANEL),
]
Space = Annotated[Literal["logits", "features"] | None, typer.Option(rich_help_panel=PLAN_PANEL)]
Norm = Annotated[Literal["l1", "l2"] | None, typer.Option(rich_help_panel=PLAN_PANEL)]
Compare = Annotated[
    Literal["origin", "neighbour"] | None,
    typer.Option(help="With the image itself, or with the next smaller start time.", rich_help_panel=PLAN_PANEL),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the noise.", rich_help_panel=PLAN_PANEL)]
Witnesses = Annotated[
    str | None,
    typer.Option("--witnesses", help=f"What is fused, as one list: {','.join(WITNESSES)}.", rich_help_panel=PLAN_PANEL),
]
Combine = Annotated[
    Combination | None,
    typer.Option(
        help="sum: of standard deviations; tail: far out a sure witness weighs more.", rich_help_panel=PLAN_PANEL
    ),
]
Stages = Annotated[
    list[int] | None,
    typer.Option(
        "--stage",
        help="Repeats after which a clear image goes no further, 0: none at all; several times for several.",
        rich_help_panel=PLAN_PANEL,
    ),
]


def _backend_choice(name: str) -> str:
    try:
        return require_backend_choice(name)
    except ValueError as error:
        raise typer.BadParameter(f"{name!r}: {error}, and {AUTO}") from None


BackendName = Annotated[
    str,
    typer.Option(
        "--backend",
        parser=_backend_choice,
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
Batch = Annotated[int, typer.Option(help="Rows of every engine call.", rich_help_panel="Machine")]
Threads = Annotated[int, typer.Option(help="Threads of the engine; 0: all cores.", rich_help_panel="Machine")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines on standard output.")]
MaxPixels = Annotated[int, typer.Option(help="Refuse images with more pixels.", min=1, rich_help_panel="Limits")]
MaxBytes = Annotated[int, typer.Option(help="Refuse files with more bytes.", min=1, rich_help_panel="Limits")]


def require_png(path: Path) -> None:
    """UsageError where a picture's name does not end in .png; asked before the work, which may take long."""
    if path.suffix != ".png":
        raise UsageError(f"--output {path.name!r} does not end in .png.")


def precision_list(text: str) -> tuple[Precision, ...]:
    """Read "fp32,int8", in the order fp32, fp16, int8; UsageError for another word."""
    known = get_args(Precision)
    words = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in words if word not in known]:
        raise UsageError(f"--precision {unknown[0]!r} is not one of {', '.join(known)}.")
    return tuple(precision for precision in known if precision in words)


def word_list(text: str | None) -> tuple[str, ...] | None:
    """Read "jump,energy"; the plan says which words it knows."""
    return None if text is None else tuple(word.strip() for word in text.split(","))


def as_tuple(numbers: list[int] | None) -> tuple[int, ...] | None:
    """The values of a repeatable option, None where it was not given."""
    return tuple(numbers) if numbers else None


def report_set_aside(set_aside: Iterable[tuple[str, str]]) -> None:
    """Name every file that could not be used, with the reason, on standard error."""
    for identity, reason in set_aside:
        typer.echo(f"set aside   {identity!r}: {reason}", err=True)  # a name may hold control characters


def describe_engine(detector: Detector) -> str:
    """One line that says what runs, and why."""
    return choice.describe_engine(detector.session.precision, detector.session.backend, detector.why)
