"""diffood evaluate: realised false alarms and detection on test sets."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.inputs import InputOptions
from diffood.cli.options.machine import MachineOptions
from diffood.cli.options.parsers import html_file, new_folder
from diffood.cli.options.records import expand_records
from diffood.cli.options.sets import NamedSet, collect_sets, sets_option
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_result
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.inputs.outputs import refuse_outputs_inside

if TYPE_CHECKING:
    from diffood.calibration.metrics.evaluation import IndEvaluation


@expand_records
def evaluate(
    *,
    bundle: options.BundlePath,
    ind: Annotated[
        list[str],
        options.images_option(
            "Fresh in-distribution test images; accuracy is measured too if each lies in a folder named like its class."
        ),
    ],
    ood: Annotated[list[NamedSet] | None, sets_option("An OOD set of no group; repeatable.")] = None,
    near: Annotated[list[NamedSet] | None, sets_option("An OOD set of the group near; repeatable.")] = None,
    far: Annotated[list[NamedSet] | None, sets_option("An OOD set of the group far; repeatable.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", parser=new_folder, help="Folder for evaluation.json and pictures.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=html_file, help="HTML file for the page that `diffood report` writes."),
    ] = None,
    machine: MachineOptions,
    reading: InputOptions,
    trust: TrustOptions,
    as_json: options.AsJson = False,
) -> None:
    """Measure false alarms and detection on test images.

    Detection is given with intervals, by set and by group. Without OOD sets, false alarms alone.

    Example: diffood evaluate bundle --ind test --near boots=ood/boots --far noise=ood/noise
    """
    from diffood.calibration.evaluate import EvaluateRequest, evaluate_bundle
    from diffood.calibration.metrics.groups import Group
    from diffood.cli.text.evaluation import describe_evaluation
    from diffood.report.gallery import SetExtremes
    from diffood.report.requirements import DRAW, can_draw

    groups: dict[str, Group] = {**dict.fromkeys(collect_sets(near), "near"), **dict.fromkeys(collect_sets(far), "far")}
    request = EvaluateRequest(
        bundle, tuple(ind), collect_sets(near, far, ood), groups, machine.request(), reading.request()
    )
    refuse_outputs_inside(request.inputs, {"--output": output, "--report": report})
    if output is not None and not can_draw():
        options.print_warnings([f"no pictures in {output}, since matplotlib is not installed: {DRAW}"])
    extremes = SetExtremes()
    done = evaluate_bundle(request, progress.show_progress, extremes.see)
    result, class_names = done.evaluation, done.detector.bundle.manifest.class_names
    if output is not None:
        _write_folder(result, output)
    if report is not None:
        from diffood.report.page import write_report
        from diffood.report.report import report_on_sets

        write_report(report_on_sets(done, extremes), report)
    print_result(result, lambda found: describe_evaluation(found, class_names), as_json)
    options.exit_if_sets_aside({name: files.set_aside for name, files in done.files.items()})


def _write_folder(result: "IndEvaluation", output: Path) -> None:
    """Write evaluation.json, and pictures where they can be drawn."""
    from diffood.report.requirements import can_draw

    output.mkdir(parents=True, exist_ok=True)
    write_durably(output / "evaluation.json", (json.dumps(result.as_json(), indent=1) + "\n").encode())
    if can_draw():
        from diffood.report.charts.evaluation import draw_evaluation

        draw_evaluation(result, output)
