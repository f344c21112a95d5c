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
    from diffood.calibration import calibrate as room
    from diffood.calibration.checked import require_share
    from diffood.calibration.promises.planning import plan_images
    from diffood.report.gallery import Extremes
    from diffood.runtime.bundle.bundle import open_bundle
    from diffood.runtime.inputs.open import list_inputs

    require_share("--fpr", fpr)
    require_share("--confidence", confidence)
    if report is not None:
        from diffood.report.page import require_report

        require_report(report)
    overrides = {
        "start_times": start_time,
        "stride": stride,
        "repeats": repeats,
        "guidance": guidance,
        "sampler": sampler,
        "schedule": schedule,
        "space": space,
        "norm": norm,
        "compare": compare,
        "seed": seed,
        "witnesses": options.word_list(witnesses),
        "combine": combine,
        "stages": stages,
    }
    sources = list_inputs(images) if images else []
    if plan_only:
        opened = open_bundle(bundle)
        fused = opened.plan(plan).changed(overrides).fused
        classes = len(opened.manifest.class_names) if per_class else None
        counts = [*(n or ()), *([len(sources)] if sources else ())]
        planned = plan_images(fpr, confidence, method, fused=fused, classes=classes, counts=counts)
        typer.echo(json.dumps(planned.as_json()) if as_json else "\n".join(describe_images(planned)))
        return
    if not sources:
        raise UsageError(
            "Give in-distribution images with --images DIR, or --plan-only to ask how many are needed before."
        )
    if n:
        raise UsageError("--n asks what numbers of images would give; it goes with --plan-only.")
    detector = options.open_with_plan(
        bundle, plan, overrides, backend=backend, precision=precision, batch=batch, threads=threads
    )
    extremes = Extremes()
    session = detector.session  # named while it works: hours may be spent on an engine that was not meant
    with progress.show_progress(f"calibrating {session.precision} on {session.backend}", len(sources)) as advance:
        done = room.calibrate_files(
            detector, sources, fpr, confidence, method, advance, extremes.see, per_class=per_class
        )
    path = done.save()
    if report is not None:
        from diffood.report.page import write_report
        from diffood.report.report import report_on_calibration

        write_report(report_on_calibration(done, extremes), report)
    if as_json:
        typer.echo(json.dumps(done.as_json()))
    else:
        typer.echo("\n".join(describe_calibration(done)))
        typer.echo(f"wrote       {path}")
    options.report_set_aside(done.set_aside)
    if done.files.repeated:
        typer.echo(
            f"warning     {done.files.repeated} files repeat another's bytes; the guarantee counts on fresh images.",
            err=True,
        )
    if done.set_aside:
        raise typer.Exit(EXIT_SET_ASIDE)
