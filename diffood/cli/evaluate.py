"""diffood evaluate: realised false alarms and detection on test sets."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli import options, progress
from diffood.errors import EXIT_SET_ASIDE, UsageError
from diffood.runtime.detector import DEFAULT_BATCH, Detector
from diffood.runtime.records import acts

NamedFolders = list[str] | None


def evaluate(
    bundle: options.BundlePath,
    ind: Annotated[
        Path,
        typer.Option(
            help="Folder of fresh in-distribution test images. Accuracy is measured too where each lies in a folder "
            "below it that is named like its class."
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
    from diffood.calibration.calibrate import ScoredFiles, score_folder
    from diffood.calibration.evaluate import evaluate as measure
    from diffood.calibration.gallery import Extremes
    from diffood.calibration.groups import Group
    from diffood.calibration.pictures import draw_histograms, draw_rejection
    from diffood.cli.evaluation_table import table
    from diffood.runtime.serving.sources import expand_inputs

    near_folders = named_folders(near or [], "--near")
    far_folders = named_folders(far or [], "--far", taken=near_folders)
    folders = near_folders | far_folders
    folders |= named_folders(ood or [], taken=folders)
    if not folders:
        raise UsageError("No OOD set given: add --ood, --near or --far NAME=DIR, once for each.")
    if report is not None:
        from diffood.calibration.report_page import require_report

        require_report(report)
    detector = Detector.open(bundle, backend=backend, precision=precision, batch=batch, threads=threads)
    calibration, class_names = detector.calibration(), detector.bundle.manifest.class_names
    sources = {name: expand_inputs([str(folder)]) for name, folder in {"ind": ind, **folders}.items()}
    scored: dict[str, ScoredFiles] = {}
    extremes = {name: Extremes() for name in sources}
    with progress.show_progress("evaluating", sum(map(len, sources.values()))) as advance:
        for name, files in sources.items():
            scored[name] = score_folder(detector, files, progress=advance, see=extremes[name].see)
    groups: dict[str, Group] = {name: "near" if name in near_folders else "far" for name in near_folders | far_folders}
    known = {name: files for name, files in scored.items() if name != "ind"}
    result = measure(calibration, detector.evaluations, scored["ind"], known, groups, class_names)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "evaluation.json").write_text(json.dumps(result.as_json(), indent=1) + "\n")
        if result.class_thresholds:  # no one line divides the scores, so each is drawn against its own
            above = {name: scores - result.thresholds[name] for name, scores in result.scores.items()}
            draw_histograms(above, 0.0, result.alpha, output / "scores.png", "OOD score above its class's threshold")
        else:
            draw_histograms(result.scores, result.threshold, result.alpha, output / "scores.png")
        if result.rejection:
            draw_rejection(result.rejection, output / "rejection.png")
    if report is not None:
        from diffood.calibration.report import report_on_sets
        from diffood.calibration.report_page import write_report

        write_report(report_on_sets(detector, calibration, scored, extremes, result), report)
    typer.echo(json.dumps(result.as_json()) if as_json else table(result, class_names))
    if any(result.set_aside.values()):
        raise typer.Exit(EXIT_SET_ASIDE)


def named_folders(pairs: list[str], option: str = "--ood", taken: Container[str] = ()) -> dict[str, Path]:
    """Read NAME=DIR pairs; UsageError for a name that is missing, repeated, taken or `ind`."""
    folders: dict[str, Path] = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if not name or not folder or name == "ind" or name in folders or name in taken:
            raise UsageError(f"{option} {pair!r} is not NAME=DIR with a name of its own (and not 'ind').")
        if any(map(acts, name)):
            raise UsageError(f"{option} {pair!r} has control characters in its name, which tables cannot show.")
        folders[name] = Path(folder)
    return folders
