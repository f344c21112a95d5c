"""diffood calibrate: a threshold with a guarantee, from in-distribution images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.inputs import InputOptions
from diffood.cli.options.machine import FixedMachineOptions
from diffood.cli.options.parsers import html_file
from diffood.cli.options.plan import PlanOptions
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions, warn_if_unsigned
from diffood.cli.printing import print_result
from diffood.cli.text.calibration import (
    describe_calibration,
    describe_images,
    describe_repeated,
    describe_restored,
)
from diffood.errors import UsageError
from diffood.runtime.inputs.outputs import refuse_outputs_inside

if TYPE_CHECKING:
    from diffood.calibration.calibrate import CalibrateRequest


@expand_records
def calibrate(
    *,
    bundle: options.BundlePath,
    images: Annotated[
        list[str] | None,
        options.images_option("In-distribution images that neither model was trained on."),
    ] = None,
    fpr: Annotated[float, typer.Option(help="False-alarm rate that must not be exceeded.")] = 0.05,
    confidence: Annotated[float, typer.Option(help="Confidence of that, for --method pac.")] = 0.95,
    method: Annotated[
        Literal["pac", "conformal", "quantile"],
        typer.Option(help="pac: holds with the confidence; conformal: holds on average; quantile: no guarantee."),
    ] = "pac",
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also a threshold for each predicted class with enough images.")
    ] = False,
    ood_examples: Annotated[
        list[str] | None,
        typer.Option("--ood-examples", metavar="INPUT", help="OOD images: how many like these are caught. Repeatable."),
    ] = None,
    detect: Annotated[
        float | None, typer.Option(help="With --ood-examples: share that should be caught, and what it takes.")
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Score nothing; say how many images are needed and what more give.")
    ] = False,
    n: Annotated[
        list[int] | None,
        typer.Option("--n", metavar="N", help="With --plan-only: a number of images to ask about; repeatable."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the calibration that the bundle has; it is kept.")
    ] = False,
    from_feedback: Annotated[
        bool,
        typer.Option("--from-feedback", help="Fit on served rows that `diffood feedback` says are in-distribution."),
    ] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Fit nothing; put the calibration that was replaced in force again.")
    ] = False,
    kept: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --restore: which one, as `diffood inspect` names it.")
    ] = None,
    plan: PlanOptions,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=html_file, help="HTML file for a page about what was fitted.")
    ] = None,
    machine: FixedMachineOptions,
    reading: InputOptions,
    trust: TrustOptions,
    as_json: options.AsJson = False,
) -> None:
    """Fit a bundle's threshold on in-distribution images.

    The threshold and its guarantee are stored in the bundle.

    Example: diffood calibrate bundle --images validation --fpr 0.05 --confidence 0.95

    Before you gather images: diffood calibrate bundle --plan-only --fpr 0.001 --n 5000
    """
    if restore or kept is not None:
        _restore(bundle, kept, restore=restore, alone=not (images or ood_examples or plan_only), as_json=as_json)
        return
    from diffood.calibration.calibrate import CalibrateRequest, plan_calibration

    refuse_outputs_inside([*(images or ()), *(ood_examples or ())], {"--report": report})
    request = CalibrateRequest(
        bundle=bundle,
        images=tuple(images or ()),
        fpr=fpr,
        confidence=confidence,
        method=method,
        per_class=per_class,
        plan=plan.request(),
        engine=machine.request(),
        rules=reading.request(),
        overwrite=overwrite,
        ood_examples=tuple(ood_examples or ()),
        detect=detect,
    )
    if from_feedback:
        _from_feedback(
            request, alone=not (images or ood_examples or detect or plan_only or n or report), as_json=as_json
        )
        return
    if plan_only:
        planned = plan_calibration(request, n or ())
        print_result(planned, describe_images, as_json)
        return
    if n:
        raise UsageError("--n asks what a number of images would give; it goes with --plan-only.")
    _fit(request, report, as_json=as_json)


def _fit(request: "CalibrateRequest", report: Path | None, *, as_json: bool) -> None:
    from diffood.calibration.calibrate import calibrate_bundle
    from diffood.report.gallery import Extremes

    extremes = Extremes()
    done = calibrate_bundle(request, progress.show_progress, extremes.see)
    if report is not None:
        from diffood.report.page import write_report
        from diffood.report.report import report_on_calibration

        write_report(report_on_calibration(done, extremes), report)
    print_result(done, describe_calibration, as_json)
    options.print_warnings([*describe_repeated(done), *done.predictions.warnings()])
    warn_if_unsigned(request.bundle)
    options.exit_if_set_aside(done.set_aside)


def _from_feedback(request: "CalibrateRequest", *, alone: bool, as_json: bool) -> None:
    if not alone:
        raise UsageError(
            "--from-feedback fits on labelled rows: leave --images, --ood-examples, --plan-only, --n, --report out."
        )
    from diffood.calibration.feedback.recalibrate import calibrate_from_feedback
    from diffood.cli.text.feedback import describe_recalibrated

    print_result(calibrate_from_feedback(request), describe_recalibrated, as_json)
    warn_if_unsigned(request.bundle)


def _restore(bundle: Path, kept: str | None, *, restore: bool, alone: bool, as_json: bool) -> None:
    if not restore:
        raise UsageError("--kept names an earlier calibration; it goes with --restore.")
    if not alone:
        raise UsageError("--restore fits nothing: leave --images, --ood-examples and --plan-only out.")
    from diffood.calibration.replacing import restore_calibration

    done = restore_calibration(bundle, kept)
    print_result(done, describe_restored, as_json)
    warn_if_unsigned(bundle)
