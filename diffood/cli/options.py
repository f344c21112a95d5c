"""Options that several verbs share, and the detector they describe."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from diffood.runtime.bundle import open_bundle
from diffood.runtime.detector import DEFAULT_BATCH, Detector
from diffood.runtime.plan import Plan
from diffood.runtime.schedule import Convention, Sampler

PLAN_PANEL = "Plan"

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
Batch = Annotated[int, typer.Option(help="Rows of every engine call.", rich_help_panel="Machine")]
Threads = Annotated[int, typer.Option(help="Threads of the engine; 0: all cores.", rich_help_panel="Machine")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines on standard output.")]
MaxPixels = Annotated[int, typer.Option(help="Refuse images with more pixels.", min=1, rich_help_panel="Limits")]
MaxBytes = Annotated[int, typer.Option(help="Refuse files with more bytes.", min=1, rich_help_panel="Limits")]


def open_with_plan(
    path: Path, name: str | None, overrides: dict[str, Any], *, batch: int = DEFAULT_BATCH, threads: int = 0
) -> Detector:
    """Open a bundle with a named plan and the fields that were given on the command line."""
    bundle = open_bundle(path)
    return Detector.load(bundle, bundle.plan(name).changed(overrides), batch=batch, threads=threads)


def describe_plan(plan: Plan, evaluations: int) -> str:
    """One line that says what a plan does and costs."""
    starts = ", ".join(map(str, plan.start_times))
    return (
        f"{plan.schedule} {plan.sampler}, start {starts}, stride {plan.stride}, repeats {plan.repeats}, "
        f"guidance {plan.guidance:g}, {plan.space} {plan.norm}: {evaluations} UNet evaluations an image"
    )
