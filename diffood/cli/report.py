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
    """Write one self-contained page: what was fitted, what is guaranteed, and how it performs on test images.

    Example: diffood report bundle --ind test --ood digits=ood/digits --output report.html
    """
    from diffood.calibration.evaluate import EvaluateRequest
    from diffood.calibration.request import EngineRequest
    from diffood.report.report import ReportRequest, make_report

    sets = {name: (given,) for name, given in named_folders(ood or []).items()}
    tests = EvaluateRequest(bundle, (ind,), sets, engine=EngineRequest(backend, precision, batch, threads))
    written = make_report(ReportRequest(tests, output), progress.show_progress)
    aside = {name: count for name, count in written.set_aside.items() if count}
    typer.echo(f"scored      {', '.join(f'{count} of {name}' for name, count in written.scored.items())}")
    if aside:
        typer.echo(f"set aside   {', '.join(f'{count} of {name}' for name, count in aside.items())}")
    typer.echo(f"wrote       {written.path} ({written.path.stat().st_size / 1e6:.1f} MB)")
    if aside:
        raise typer.Exit(EXIT_SET_ASIDE)
