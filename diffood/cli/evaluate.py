"""diffood evaluate: realised false alarms and detection on test sets."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffood.cli import options, progress
from diffood.errors import EXIT_SET_ASIDE, UsageError
from diffood.runtime.detector import DEFAULT_BATCH, Detector

if TYPE_CHECKING:
    from diffood.calibration.evaluate import Evaluation

UNFAIR = 0.05  # p-value, Holm's over the classes, from which a class is named


def evaluate(
    bundle: options.BundlePath,
    ind: Annotated[Path, typer.Option(help="Folder of fresh in-distribution test images.")],
    ood: Annotated[list[str], typer.Option(metavar="NAME=DIR", help="An OOD set; give it once for each.")],
    output: Annotated[Path | None, typer.Option(help="Folder for evaluation.json and scores.png.")] = None,
    backend: options.BackendName = "auto",
    precision: options.PrecisionName = None,
    batch: options.Batch = DEFAULT_BATCH,
    threads: options.Threads = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure a calibrated bundle on test images: false alarms with their interval, detection and AUROC a set.

    Example: diffood evaluate bundle --ind test --ood digits=ood/digits --ood noise=ood/noise --output report
    """
    from diffood.calibration.calibrate import ScoredFiles, score_folder
    from diffood.calibration.evaluate import evaluate as measure
    from diffood.calibration.pictures import draw_histograms
    from diffood.runtime.serving.sources import expand_inputs

    folders = named_folders(ood)
    detector = Detector.open(bundle, backend=backend, precision=precision, batch=batch, threads=threads)
    calibration = detector.calibration()
    sources = {name: expand_inputs([str(folder)]) for name, folder in {"ind": ind, **folders}.items()}
    scored: dict[str, ScoredFiles] = {}
    with progress.show_progress("evaluating", sum(map(len, sources.values()))) as advance:
        for name, files in sources.items():
            scored[name] = score_folder(detector, files, progress=advance)
    result = measure(calibration, detector.evaluations, scored.pop("ind"), scored)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "evaluation.json").write_text(json.dumps(result.as_json(), indent=1) + "\n")
        if result.class_thresholds:  # no one line divides the scores, so each is drawn against its own
            above = {name: scores - result.thresholds[name] for name, scores in result.scores.items()}
            draw_histograms(above, 0.0, result.alpha, output / "scores.png", "OOD score above its class's threshold")
        else:
            draw_histograms(result.scores, result.threshold, result.alpha, output / "scores.png")
    typer.echo(json.dumps(result.as_json()) if as_json else table(result, detector.bundle.manifest.class_names))
    if any(result.set_aside.values()):
        raise typer.Exit(EXIT_SET_ASIDE)


def named_folders(pairs: list[str]) -> dict[str, Path]:
    """Read NAME=DIR pairs; UsageError for a name that is missing, repeated or `ind`."""
    folders: dict[str, Path] = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if not name or not folder or name == "ind" or name in folders:
            raise UsageError(f"--ood {pair!r} is not NAME=DIR with a name of its own (and not 'ind').")
        folders[name] = Path(folder)
    return folders


def span(low: float, high: float) -> str:
    """The ends of an interval, in percent."""
    return f"{low:.1%} to {high:.1%}"


def table(result: "Evaluation", class_names: Sequence[str]) -> str:
    """The evaluation as a table of plain text."""
    alarms = result.false_alarms
    lines = [
        f"false alarms  {alarms.rate:.1%} of {alarms.count} fresh in-distribution images "
        f"(95% interval {alarms.interval[0]:.1%} to {alarms.interval[1]:.1%}; asked for at most {result.alpha:.1%})",
        f"guarantee     {result.guarantee}",
        "",
        f"{'OOD set':<16}{'images':>7}{'detected':>10}{'interval':>18}{'AUROC':>8}{'interval':>18}"
        f"{'AUPR-IN':>9}{'AUPR-OUT':>9}{'FPR@95':>8}{'missed@95':>11}",
    ]
    for name, metrics in result.sets.items():
        area = result.intervals[name]
        lines.append(
            f"{name:<16}{metrics.count:>7}{metrics.detection_rate:>10.1%}{span(*metrics.detection_interval):>18}"
            f"{metrics.auroc:>8.2%}{span(area.low, area.high):>18}{metrics.aupr_in:>9.2%}{metrics.aupr_out:>9.2%}"
            f"{metrics.fpr_at_95_detection:>8.1%}{metrics.missed_at_95_kept:>11.1%}"
        )
    lines += [
        f"{'mean':<16}{'':>35}{result.mean_auroc:>8.2%}{span(result.mean_interval.low, result.mean_interval.high):>18}",
        "",
        "FPR@95: InD flagged when 95% of OOD is caught. missed@95: OOD accepted when 95% of InD is kept.",
    ]
    unfair = [row for row in result.by_class if row.p_value <= UNFAIR]
    for row in unfair:
        over = "for it" if row.predicted in result.class_thresholds else "over all classes"
        lines.append(
            f"class {class_names[row.predicted]}: {row.rate:.1%} of {row.count} flagged "
            f"({span(*row.interval)}), more than the {result.alpha:.1%} asked for {over}"
        )
    aside = {name: count for name, count in result.set_aside.items() if count}
    if aside:
        lines.append(f"set aside: {', '.join(f'{count} of {name}' for name, count in aside.items())}")
    return "\n".join(lines)
