"""diffood evaluate: realised false alarms and detection on test sets."""

import json
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.sets import named_folders
from diffood.errors import EXIT_SET_ASIDE, UsageError
from diffood.runtime.detector import DEFAULT_BATCH

NamedFolders = list[str] | None


def evaluate(
    bundle: options.BundlePath,
    ind: Annotated[
        str,
        typer.Option(
            metavar="INPUT",
            help=f"Fresh in-distribution test images. {options.INPUTS} Accuracy is measured too where each "
            "lies in a folder that is named like its class.",
        ),
    ],
    ood: Annotated[
        NamedFolders, typer.Option(metavar="NAME=DIR", help="An OOD set of no group; give it once for each.")
    ] = None,
    near: Annotated[NamedFolders, typer.Option(metavar="NAME=DIR", help="An OOD set of the group near.")] = None,
    far: Annotated[NamedFolders, typer.Option(metavar="NAME=DIR", help="An OOD set of the group far.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for evaluation.json and pictures.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML file for the page that `diffood report` writes.")] = None,
    backend: options.BackendName = "auto",
    precision: options.PrecisionName = None,
    batch: options.Batch = DEFAULT_BATCH,
    threads: options.Threads = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure a calibrated bundle on test images: false alarms, and detection with intervals by set and group.

    Example: diffood evaluate bundle --ind test --near boots=ood/boots --far noise=ood/noise --output report
    """
    from diffood.calibration.evaluate import EvaluateRequest, evaluate_bundle
    from diffood.calibration.metrics.groups import Group
    from diffood.calibration.request import EngineRequest
    from diffood.cli.text.evaluation import table
    from diffood.report.charts.evaluation import draw_evaluation
    from diffood.report.gallery import SetExtremes

    near_folders = named_folders(near or [], "--near")
    far_folders = named_folders(far or [], "--far", taken=near_folders)
    folders = near_folders | far_folders
    folders |= named_folders(ood or [], taken=folders)
    if not folders:
        raise UsageError("No OOD set given: add --ood, --near or --far NAME=DIR, once for each.")
    if report is not None:
        from diffood.report.page import require_report

        require_report(report)
    groups: dict[str, Group] = {name: "near" if name in near_folders else "far" for name in near_folders | far_folders}
    request = EvaluateRequest(
        bundle=bundle,
        ind=(ind,),
        ood={name: (folder,) for name, folder in folders.items()},
        groups=groups,
        engine=EngineRequest(backend, precision, batch, threads),
    )
    extremes = SetExtremes()
    done = evaluate_bundle(request, progress.show_progress, extremes.see)
    result, class_names = done.evaluation, done.detector.bundle.manifest.class_names
    assert result is not None
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "evaluation.json").write_text(json.dumps(result.as_json(), indent=1) + "\n")
        draw_evaluation(result, output)
    if report is not None:
        from diffood.report.page import write_report
        from diffood.report.report import report_on_sets

        write_report(report_on_sets(done, extremes), report)
    typer.echo(json.dumps(result.as_json()) if as_json else table(result, class_names))
    if any(result.set_aside.values()):
        raise typer.Exit(EXIT_SET_ASIDE)
