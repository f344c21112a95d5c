"""diffood tune: which plan finds most at the cost that is allowed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.sets import named_folders
from diffood.errors import EXIT_INTERRUPTED, EXIT_SET_ASIDE, UsageError
from diffood.runtime.detector import DEFAULT_BATCH


def tune(
    bundle: options.BundlePath,
    ind: Annotated[
        str,
        typer.Option(
            metavar="INPUT", help=f"In-distribution images that neither model was trained on. {options.INPUTS}"
        ),
    ],
    ood: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="An OOD set; several times for several. Without one, they are made."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Most UNet evaluations an in-distribution image may cost on average.")
    ] = None,
    latency: Annotated[
        float | None, typer.Option(metavar="MS", help="Most milliseconds an image may take, one at a time, here.")
    ] = None,
    images: Annotated[
        int, typer.Option(help="Most in-distribution images to look at; the others are left for `calibrate`.")
    ] = 400,
    output: Annotated[Path | None, typer.Option(help="Picture of cost against detection, .png.")] = None,
    backend: options.BackendName = "auto",
    precision: options.FixedPrecision = "fp32",
    batch: options.Batch = DEFAULT_BATCH,
    threads: options.Threads = 0,
    as_json: options.AsJson = False,
) -> None:
    """Find the cheapest plan that detects as well as any within a limit, and make it the bundle's default plan.

    Example: diffood tune bundle --ind validation --ood digits=ood/digits --budget 4 --output tuning.png

    Images it looks at are noted in the bundle: `calibrate` fits no threshold on them.
    """
    from diffood.calibration.request import EngineRequest
    from diffood.calibration.tune import TuneRequest, tune_bundle
    from diffood.calibration.tuning.choice import CostLimit
    from diffood.calibration.tuning.images import FIT
    from diffood.cli.text.tuning import describe_speeds, describe_tuning
    from diffood.report.charts.tuning_front import draw_tuning

    if (budget is None) == (latency is None):
        raise UsageError(
            "Say what an image may cost: either --budget in UNet evaluations or --latency in milliseconds."
        )
    most = latency if budget is None else budget
    assert most is not None
    if not 0 < most < float("inf"):
        raise UsageError(f"An image cannot cost at most {most:g}; give a number above 0.")
    if output is not None:
        options.require_png(output)
    request = TuneRequest(
        bundle=bundle,
        ind=(ind,),
        limit=CostLimit("milliseconds" if budget is None else "evaluations", most),
        ood={name: (folder,) for name, folder in named_folders(ood or [], taken=(FIT,)).items()},
        images=images,
        engine=EngineRequest(backend, precision, batch, threads),
    )
    tuned = tune_bundle(request, progress.show_progress)
    if output is not None:
        draw_tuning(tuned, output)
    if as_json:
        typer.echo(json.dumps(tuned.as_json()))
    else:
        typer.echo("\n".join([*describe_tuning(tuned), *describe_speeds(tuned)]))
    options.report_set_aside(tuned.images.set_aside)
    if tuned.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if tuned.images.set_aside:
        raise typer.Exit(EXIT_SET_ASIDE)
