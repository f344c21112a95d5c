"""diffood calibrate: a threshold with a guarantee, from in-distribution images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diffood.cli import options, progress
from diffood.errors import EXIT_SET_ASIDE, UsageError
from diffood.runtime.detector import DEFAULT_BATCH

if TYPE_CHECKING:
    from diffood.calibration.calibrate import Calibrated
    from diffood.calibration.planning import ImagePlan
    from diffood.runtime.decision import Calibration

CLASSES_SHOWN = 20
KINDS = {"pac": "at most", "conformal": "on average", "quantile": "seen, not promised"}


def calibrate(
    bundle: options.BundlePath,
    images: Annotated[
        list[Path] | None, typer.Option(help="Folder of in-distribution images that neither model was trained on.")
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
    from diffood.calibration.planning import plan_images
    from diffood.calibration.thresholds import require_share
    from diffood.runtime.bundle import open_bundle
    from diffood.runtime.serving.sources import expand_inputs

    require_share("--fpr", fpr)
    require_share("--confidence", confidence)
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
    }
    sources = expand_inputs([str(folder) for folder in images]) if images else []
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
    with progress.show_progress("calibrating", len(sources)) as advance:
        done = room.calibrate_files(detector, sources, fpr, confidence, method, advance, per_class=per_class)
    calibration, path = done.calibration, done.save()
    if as_json:
        typer.echo(json.dumps(done.as_json()))
    else:
        typer.echo(f"plan        {options.describe_plan(detector.plan, detector.evaluations)}")
        typer.echo(f"engine      {options.describe_engine(detector)}")
        if calibration.fusion:
            for line in options.describe_fusion(calibration.fusion):
                typer.echo(line)
        typer.echo(f"images      {calibration.n} scored, {calibration.set_aside} set aside")
        typer.echo(f"threshold   {calibration.threshold:.6f} ({calibration.allowed_above} of {calibration.n} above)")
        for line in describe_classes(calibration, detector.bundle.manifest.class_names):
            typer.echo(line)
        typer.echo(f"guarantee   {calibration.guarantee}")
        for line in describe_suspicion(done):
            typer.echo(line)
        typer.echo(f"wrote       {path}")
    for identity, reason in done.set_aside:
        typer.echo(f"set aside   {identity!r}: {reason}", err=True)  # a name may hold control characters
    if done.files.repeated:
        typer.echo(
            f"warning     {done.files.repeated} files repeat another's bytes; the guarantee counts on fresh images.",
            err=True,
        )
    if done.set_aside:
        raise typer.Exit(EXIT_SET_ASIDE)


def describe_images(planned: "ImagePlan") -> list[str]:
    """Lines that say how many images a calibration takes, and a table of what numbers of them give."""
    sure = f" with {100 * planned.confidence:.4g}% confidence" if planned.method == "pac" else ""
    lines = [f"asked for   {100 * planned.alpha:.4g}% false alarms{sure}, {planned.method}"]
    if planned.fitted:
        lines.append(
            f"needed      {planned.total} images in all: {planned.fitted} to fit how witnesses are combined, and at "
            f"least {planned.needed} others for the threshold"
        )
    else:
        lines.append(f"needed      {planned.needed} images")
    if planned.classes is not None:
        lines.append(
            f"per class   a class of which {planned.needed} images are scored gets its own threshold: at least "
            f"{planned.classes * planned.needed} for all {planned.classes}. The table is about that of all images"
        )
    lines += ["", f"{'images':>10}{'scored':>10}{'may lie above':>15}{'false alarms ' + KINDS[planned.method]:>33}"]
    for row in planned.outlooks:
        if row.bound is None:
            lines.append(f"{row.n:>10}{row.calibrated:>10}{'too few':>15}")
        else:
            lines.append(f"{row.n:>10}{row.calibrated:>10}{row.allowed_above:>15}{f'{100 * row.bound:.4g}%':>33}")
    return lines


def describe_classes(calibration: "Calibration", names: Sequence[str]) -> list[str]:
    """Lines with the threshold of each class that has its own, none without --per-class; the guarantee names others."""
    per_class = calibration.per_class
    if per_class is None:
        return []
    lines = [
        f"class       {names[own.predicted]}: {own.threshold:.6f} ({own.allowed_above} of {own.n} above; "
        f"bound {own.bound:.2%})"
        for own in per_class.thresholds
    ]
    if len(lines) > CLASSES_SHOWN:
        lines[CLASSES_SHOWN:] = [f"class       {len(lines) - CLASSES_SHOWN} more; --json has them all"]
    return lines or [f"class       none has the {per_class.needed} images that a threshold of its own takes"]


def describe_suspicion(done: "Calibrated") -> list[str]:
    """Lines that say how far OOD images among the calibration's could move the threshold, and which to look at."""
    of_all = " of all" if done.calibration.per_class else ""
    lines = [
        f"what if     {row.share:.0%} of these images ({row.removed}) were OOD: the threshold{of_all} would lie at "
        f"{row.threshold:.6f} if they are the highest, and {row.flagged_refitted:.1%} of the others would be flagged "
        f"(now {row.flagged_now:.1%}); at {row.highest_threshold:.6f} if they are the lowest"
        for row in done.contamination
    ]
    named = ", ".join(f"{suspect.id!r} {suspect.score:.3f}" for suspect in done.suspects)
    return [*lines, f"look at     {named}: the highest scores. Leave out what is OOD, and only that"]
