"""diffood report: one HTML file about a calibrated bundle."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.sets import named_folders, score_sets
from diffood.errors import EXIT_SET_ASIDE
from diffood.runtime.detector import DEFAULT_BATCH, Detector


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
    from diffood.calibration.evaluate import evaluate
    from diffood.report.page import require_report, write_report
    from diffood.report.report import IND, report_on_sets

    folders = {IND: ind, **named_folders(ood or [])}
    require_report(output)
    detector = Detector.open(bundle, backend=backend, precision=precision, batch=batch, threads=threads)
    calibration = detector.calibration()
    scored, extremes = score_sets(detector, folders, "scoring")
    ood_scored = {name: files for name, files in scored.items() if name != IND}
    names = detector.bundle.manifest.class_names
    evaluation = evaluate(calibration, scored[IND], ood_scored, class_names=names) if ood_scored else None
    write_report(report_on_sets(detector, calibration, scored, extremes, evaluation), output)
    typer.echo(f"scored      {', '.join(f'{len(files.scores)} of {name}' for name, files in scored.items())}")
    aside = {name: len(files.set_aside) for name, files in scored.items() if files.set_aside}
    if aside:
        typer.echo(f"set aside   {', '.join(f'{count} of {name}' for name, count in aside.items())}")
    typer.echo(f"wrote       {output} ({output.stat().st_size / 1e6:.1f} MB)")
    if aside:
        raise typer.Exit(EXIT_SET_ASIDE)
