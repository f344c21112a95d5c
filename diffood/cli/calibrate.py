"""diffood calibrate: a threshold with a guarantee, from in-distribution images."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.text.calibration import describe_calibration, describe_images
from diffood.errors import EXIT_SET_ASIDE, UsageError
from diffood.runtime.detector import DEFAULT_BATCH


def calibrate(
    bundle: options.BundlePath,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT", help=f"In-distribution images that neither model was trained on. {options.INPUTS}"
        ),
    ] = None,
    fpr: Annotated[float, typer.Option(help="False-alarm rate that must not be exceeded.")] = 0.05,
    confidence: Annotated[float, typer.Option(help="Confidence of that, for --method pac.")] = 0.95,
    method: Annotated[
        Literal["pac", "conformal", "quantile"],
        typer.Option(help="pac: holds with the confidence; conformal: on average; quantile: no guarantee."),
    ] = "pac",
    per_class: Annotated[
        bool, typer.Option("--per-class", help="A threshold for each predicted class too, where its images suffice.")
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Score nothing: say how many images this takes and what more give.")
    ] = False,
    n: Annotated[
        list[int] | None, typer.Option("--n", help="With --plan-only: a number of images to ask about; repeatable.")
    ] = None,
    plan: options.PlanName = None,
    start_time: options.StartTimes = None,
    stride: options.Stride = None,
    repeats: options.Repeats = None,
    guidance: options.Guidance = None,
    sampler: options.SamplerName = None,
    schedule: options.Schedule = None,
    space: options.Space = None,
    norm: options.Norm = None,
    compare: options.Compare = None,
    seed: options.Seed = None,
    witnesses: options.Witnesses = None,
    combine: options.Combine = None,
    stages: options.Stages = None,
    report: Annotated[Path | None, typer.Option(help="HTML file for a page about what was fitted.")] = None,
    backend: options.BackendName = "auto",
    precision: options.FixedPrecision = "fp32",
    batch: options.Batch = DEFAULT_BATCH,
    threads: options.Threads = 0,
    as_json: options.AsJson = False,
) -> None:
    """Fit the threshold of a bundle on in-distribution images and store it in the bundle.

    Example: diffood calibrate bundle --images validation --fpr 0.05 --confidence 0.95

    Before any image is gathered: diffood calibrate bundle --plan-only --fpr 0.001 --n 5000 --n 20000
    """
    from diffood.calibration.calibrate import CalibrateRequest, calibrate_bundle, plan_calibration
    from diffood.calibration.request import EngineRequest, PlanRequest
    from diffood.report.gallery import Extremes

    if report is not None:
        from diffood.report.page import require_report

        require_report(report)
    request = CalibrateRequest(
        bundle=bundle,
        images=tuple(images or ()),
        fpr=fpr,
        confidence=confidence,
        method=method,
        per_class=per_class,
        plan=PlanRequest(
            name=plan,
            schedule=schedule,
            sampler=sampler,
            start_times=options.as_tuple(start_time),
            stride=stride,
            repeats=repeats,
            guidance=guidance,
            space=space,
            norm=norm,
            compare=compare,
            seed=seed,
            witnesses=options.word_list(witnesses),
            combine=combine,
            stages=options.as_tuple(stages),
        ),
        engine=EngineRequest(backend, precision, batch, threads),
    )
    if plan_only:
        planned = plan_calibration(request, n or ())
        typer.echo(json.dumps(planned.as_json()) if as_json else "\n".join(describe_images(planned)))
        return
    if n:
        raise UsageError("--n asks what numbers of images would give; it goes with --plan-only.")
    extremes = Extremes()
    done = calibrate_bundle(request, progress.show_progress, extremes.see)
    if report is not None:
        from diffood.report.page import write_report
        from diffood.report.report import report_on_calibration

        write_report(report_on_calibration(done, extremes), report)
    if as_json:
        typer.echo(json.dumps(done.as_json()))
    else:
        typer.echo("\n".join(describe_calibration(done)))
        typer.echo(f"wrote       {done.path}")
    options.report_set_aside(done.set_aside)
    if done.files.repeated:
        typer.echo(
            f"warning     {done.files.repeated} files repeat another's bytes; the guarantee counts on fresh images.",
            err=True,
        )
    if done.set_aside:
        raise typer.Exit(EXIT_SET_ASIDE)
