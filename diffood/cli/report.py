"""diffood report: one HTML file about a calibrated bundle."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.sets import named_folders
from diffood.errors import EXIT_SET_ASIDE
from diffood.runtime.detector import DEFAULT_BATCH


def report(
    bundle: options.BundlePath,
    ind: Annotated[str, typer.Option(metavar="INPUT", help="Fresh in-distribution test images. " + options.INPUTS)],
    output: Annotated[Path, typer.Option(help="The HTML file to write.")],
    ood: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="An OOD set; give it once for each.")
    ] = None,
    backend: options.BackendName = "auto",
    precision: options.PrecisionName = None,
    batch: options.Batch = DEFAULT_BATCH,
    threads: options.Threads = 0,
) -> None:
    """Write one self-contained page: what was fitted, what it promises, how it does on test images, and which images.

    Example: diffood report bundle --ind test --ood digits=ood/digits --output report.html
    """
    from collections import defaultdict

    from diffood.calibration.evaluate import EvaluateRequest, evaluate_bundle
    from diffood.calibration.request import EngineRequest
    from diffood.report.gallery import Extremes
    from diffood.report.page import require_report, write_report
    from diffood.report.report import report_on_sets

    require_report(output)
    request = EvaluateRequest(
        bundle=bundle,
        ind=(ind,),
        ood={name: (folder,) for name, folder in named_folders(ood or []).items()},
        engine=EngineRequest(backend, precision, batch, threads),
    )
    extremes: defaultdict[str, Extremes] = defaultdict(Extremes)
    done = evaluate_bundle(request, progress.show_progress, lambda name, *found: extremes[name].see(*found))
    scored = done.files
    write_report(report_on_sets(done.detector, done.calibration, scored, extremes, done.evaluation), output)
    typer.echo(f"scored      {', '.join(f'{len(files.scores)} of {name}' for name, files in scored.items())}")
    aside = {name: len(files.set_aside) for name, files in scored.items() if files.set_aside}
    if aside:
        typer.echo(f"set aside   {', '.join(f'{count} of {name}' for name, count in aside.items())}")
    typer.echo(f"wrote       {output} ({output.stat().st_size / 1e6:.1f} MB)")
    if aside:
        raise typer.Exit(EXIT_SET_ASIDE)
