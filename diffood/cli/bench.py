"""diffood bench: the official loop and ours, side by side on this machine."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.models import ModelOptions
from diffood.cli.options.records import expand_records
from diffood.errors import UsageError
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import DEFAULT_BATCH
from diffood.runtime.method.plan import Plan
from diffood.runtime.sessions import Array

if TYPE_CHECKING:
    from diffood.bench.compare import Contender

OFFICIAL = "reference"  # the bundle's plan that is the paper's code's
EAGER, COMPILED = "official loop, torch eager, fp32", "official loop, torch.compile, fp32"
IMAGES = 1000  # of --images, evenly over its files; they are taken in a circle

Skipped = list[tuple[str, str]]


@expand_records
def bench(
    *,
    bundle: options.BundlePath,
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT", help="Real images of the kind that is served; without: the embedded ones."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Each contender's share of the time.", min=0)] = 30.0,
    rounds: Annotated[int, typer.Option(help="Turns the time is taken in.", min=1, max=1000)] = 7,
    plan: Annotated[list[str] | None, typer.Option(help="Plan of the bundle, once for each; without: all.")] = None,
    backend: options.BackendName = "auto",
    precision: Annotated[str, typer.Option(metavar="P[,P]", help="Precisions; without: all there are.")] = "",
    batch: Annotated[
        int, typer.Option(help="Rows of every engine call.", min=1, max=4096, rich_help_panel="Machine")
    ] = DEFAULT_BATCH,
    threads: options.Threads = 0,
    models: ModelOptions,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Also the loop by torch.compile, which takes a minute.")
    ] = True,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Also peak memory, each in a process of its own.")
    ] = True,
    output: Annotated[Path | None, typer.Option(help="File for a chart, .png.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Time the paper's own loop and every way to run this bundle here, in turns on the same images, in one run.

    The torch models are those of `diffood export`; the embedded ones are found. Without torch those rows are left out.

    Example: diffood bench bundle --images validation --seconds 60 --output bench.png
    """
    from diffood.bench.compare import Budget, compare
    from diffood.bench.contenders import our_contenders, plain_contender, plans_of
    from diffood.cli.text.comparison import table
    from diffood.report.charts.bench_comparison import draw_comparison

    if output is not None:
        options.require_png(output)
    given = models.read()
    opened = open_bundle(bundle)
    official, plans = opened.plan(OFFICIAL), plans_of(opened, plan or ())
    sample = _read_images(opened, images)
    torch_ones, skipped = _torch_contenders(
        opened, given, official, {EAGER: False, COMPILED: True} if compiled else {EAGER: False}, (batch, threads)
    )
    ours, unusable = our_contenders(
        opened, plans, backend=backend, precisions=options.precision_list(precision), batch=batch, threads=threads
    )
    contenders = [*torch_ones, plain_contender(opened, official, batch=batch, threads=threads), *ours]
    with progress.show_progress("timing", 2 * rounds * len(contenders)) as advance:
        found = compare(contenders, sample, Budget(seconds, rounds), memory=memory, progress=advance)
    found = replace(found, skipped=(*skipped, *unusable, *found.skipped))
    unet_entry, shape, latent = opened.manifest.unet, opened.manifest.image, opened.manifest.latent
    if output is not None:
        draw_comparison(found, output)
    if as_json:
        setting = {
            "bundle": opened.path.name,
            "unet_parameters": unet_entry.parameters,
            "image": asdict(shape),
            "latent": latent and latent.model_dump(include={"channels", "height", "width"}),
            "images": len(sample),
            "batch": batch,
            "threads": threads,
            "seconds": seconds,
        }
        typer.echo(json.dumps(setting | found.as_json()))
        return
    lane = f"latents of {latent.channels}x{latent.height}x{latent.width} of " if latent else ""
    typer.echo(
        f"models      a UNet of {unet_entry.parameters / 1e6:.1f} M parameters on {lane}"
        f"{shape.channels}x{shape.height}x{shape.width}, {len(sample)} images in turn"
    )
    typer.echo(f"engines     batch {batch}, {threads or 'all'} threads, {seconds:g} s each in {rounds} rounds")
    typer.echo(table(found))
    if output is not None:
        typer.echo(f"wrote       {output}")


def _read_images(bundle: Bundle, inputs: list[str] | None) -> Array:
    """The images given, or the embedded ones where they are what the bundle takes."""
    shape = bundle.manifest.image
    if inputs:
        from diffood.export.images import read_some  # needs no torch

        return read_some(inputs, shape, IMAGES, partial(typer.echo, err=True))
    from diffood.runtime.images.pixels import from_pixels
    from diffood.zoo.images import load_set

    x = from_pixels(load_set("fashion-test").images[:, None])
    if x.shape[1:] != (shape.channels, shape.height, shape.width):
        raise UsageError(
            f"{bundle.path} takes images of {shape.channels}x{shape.height}x{shape.width}, the embedded ones are "
            f"{'x'.join(map(str, x.shape[1:]))}: give real ones of its kind with --images DIR."
        )
    return x


def _torch_contenders(
    bundle: Bundle, given: ModelSources | None, plan: Plan, names: dict[str, bool], machine: tuple[int, int]
) -> tuple[list["Contender"], Skipped]:
    """The official loop under each name, compiled or not; or why there is none."""
    from diffood.bench.compare import Contender

    try:
        from diffood.bench.torch_loop import are_of, open_torch_loop
    except ImportError as error:
        return [], [(name, f"needs {error.name}: pip install 'diffood[export]'") for name in names]
    if given is not None:
        models = given
    else:
        from diffood import zoo

        models = ModelSources(zoo.UNET, ClassifierSource(f"{zoo.CLASSIFIER}:{zoo.FACTORY}", zoo.CLASSIFIER_WEIGHTS))
        if not are_of(bundle.manifest, models):
            reason = "the torch models are not at hand: give --unet and --classifier as at the export"
            return [], [(name, reason) for name in names]
    batch, threads = machine
    return [
        Contender(
            name=name,
            open=partial(open_torch_loop, bundle.path, models, plan, threads, compiled),
            rows=batch,
            chunk=max(1, batch // plan.repeats),
            single_rows=(plan.repeats,),
        )
        for name, compiled in names.items()
    ], []
