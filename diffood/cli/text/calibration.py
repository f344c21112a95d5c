"""What `diffood calibrate` prints of a calibration, and of the images one needs, in lines. Prints nothing itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffood.calibration.metrics.formatting import exact_percent, percent
from diffood.calibration.replacing import describe_kept
from diffood.cli.text.conversions import describe_conversions
from diffood.cli.text.plan import describe_fusion, describe_plan
from diffood.cli.text.predictions import describe_predictions
from diffood.cli.text.tables import table_lines
from diffood.runtime.bundle.bundle import DETECTOR_FILES
from diffood.runtime.printable import shell_word
from diffood.runtime.sessions.choice import describe_engine

if TYPE_CHECKING:
    from diffood.calibration.calibrate import Calibrated
    from diffood.calibration.promises.detection import DetectionGoal
    from diffood.calibration.promises.planning import ImagePlan
    from diffood.calibration.replacing import Restored
    from diffood.runtime.bundle.calibration import Calibration

CLASSES_SHOWN = 20
KINDS = {"pac": "at most", "conformal": "on average", "quantile": "seen, not promised"}


def describe_calibration(done: "Calibrated") -> list[str]:
    """Lines that say what was fitted on what, what it promises, and what to look at."""
    calibration, session = done.calibration, done.detector.session
    detector = done.path.with_name(DETECTOR_FILES[session.precision])
    return [
        f"plan        {describe_plan(done.detector.plan, done.detector.evaluations)}",
        f"engine      {describe_engine(session.precision, session.backend, done.detector.why)}",
        *(describe_fusion(calibration.fusion) if calibration.fusion else []),
        f"images      {calibration.n} scored, {calibration.set_aside} set aside",
        *describe_conversions(done.conversions, calibration.n + (calibration.fusion.n if calibration.fusion else 0)),
        *([_trained(done)] if done.trained else []),
        *([_tuned(done)] if done.tuned else []),
        *describe_predictions(done.predictions),
        f"threshold   {calibration.threshold:.6f} ({calibration.allowed_above} of {calibration.n} above)",
        *describe_classes(calibration, done.detector.bundle.manifest.class_names),
        f"guarantee   {calibration.guarantee}",
        *([f"detection   {calibration.detection.statement}"] if calibration.detection else []),
        *(describe_goal(done.goal) if done.goal else []),
        *describe_suspicion(done),
        f"wrote       {done.path} and {detector}, which gives these verdicts in any runtime for ONNX",
        *(_replaced(done.path.parent, done.replaced) if done.replaced else []),
    ]


def describe_restored(done: "Restored") -> list[str]:
    """Lines that say which calibration is in force again, and where the one before it is kept."""
    return [
        f"restored    {done.name}: {describe_kept(done.calibration)}",
        f"guarantee   {done.calibration.guarantee}",
        f"wrote       {done.path}",
        *(_replaced(done.path.parent, done.replaced) if done.replaced else []),
        f"next        diffood verify {shell_word(done.path.parent)} --images DIR: other precisions and backends were "
        "judged at another threshold",
    ]


def _replaced(bundle: Path, name: str) -> list[str]:
    command = f"diffood calibrate {shell_word(bundle)} --restore --kept {shell_word(name)}"
    return [f"replaced    {name}; `{command}` brings it back"]


def describe_goal(goal: "DetectionGoal") -> list[str]:
    """Lines that say whether a wanted share of OOD images is detected, and what it would take."""
    asked = exact_percent(goal.asked)
    if goal.holds:
        return [f"asked for   {asked} of OOD images like these: this threshold keeps both promises"]
    examples = (
        f"if the same share of more examples is flagged, {goal.examples} in all show it"
        if goal.examples
        else "no number of examples can show it at this threshold, too few are flagged"
    )
    elsewhere = (
        f"with these examples it holds at a threshold of {goal.threshold:.6f}, where up to {percent(goal.fpr, 2)} of "
        "in-distribution images are flagged"
        if goal.fpr is not None
        else "these examples are too few for any threshold"
    )
    return [f"asked for   {asked} of OOD images like these: not shown; {examples}; {elsewhere}"]


def describe_repeated(done: "Calibrated") -> list[str]:
    """A warning where images occur more than once."""
    if not done.files.repeated:
        return []
    repeat = "files repeat" if done.files.repeated > 1 else "file repeats"
    return [f"{done.files.repeated} {repeat} another's bytes; the guarantee counts on fresh images."]


def _trained(done: "Calibrated") -> str:
    return f"trained on  {done.trained} other images given, by the UNet: left out, the guarantee does not hold for them"


def _tuned(done: "Calibrated") -> str:
    fitted = ", only to fit how witnesses are combined" if done.fitted else ""
    return f"tuned on    {done.tuned} of the images by `diffood tune`: not used for the threshold{fitted}"


def describe_images(planned: "ImagePlan") -> list[str]:
    """Lines that say how many images a calibration takes, and a table of what numbers of them give."""
    sure = f" with {exact_percent(planned.confidence)} confidence" if planned.method == "pac" else ""
    lines = [f"asked for   {exact_percent(planned.alpha)} false alarms{sure}, {planned.method}"]
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
            f"{planned.classes * planned.needed} for all {planned.classes}. The table is about the threshold of all"
        )
    heads = ("images", "scored", "may lie above", f"false alarms {KINDS[planned.method]}")
    rows = [
        (str(row.n), str(row.calibrated), str(row.allowed_above), f"{100 * row.bound:.4g}%")
        if row.bound is not None
        else (str(row.n), str(row.calibrated), "too few", "")
        for row in planned.outlooks
    ]
    return [*lines, "", *table_lines(heads, rows)]


def describe_classes(calibration: "Calibration", names: Sequence[str]) -> list[str]:
    """Lines with the threshold of each class that has its own, none without --per-class; the guarantee names others."""
    per_class = calibration.per_class
    if per_class is None:
        return []
    lines = [
        f"class       {names[own.predicted]}: {own.threshold:.6f} ({own.allowed_above} of {own.n} above; "
        f"bound {percent(own.bound, 2)})"
        for own in per_class.thresholds
    ]
    if len(lines) > CLASSES_SHOWN:
        lines[CLASSES_SHOWN:] = [f"class       {len(lines) - CLASSES_SHOWN} more; --json has them all"]
    return lines or [f"class       no class has the {per_class.needed} images that its own threshold needs"]


def describe_suspicion(done: "Calibrated") -> list[str]:
    """Lines that say how far OOD images among the calibration images could move the threshold, and which to check."""
    of_all = " of all" if done.calibration.per_class else ""
    lines = [
        f"what if     {exact_percent(row.share)} of these images ({row.removed}) were OOD: the threshold{of_all} would "
        f"lie at {row.threshold:.6f} if they are the highest, and {percent(row.flagged_refitted)} of the others would "
        f"be flagged (now {percent(row.flagged_now)}); at {row.highest_threshold:.6f} if they are the lowest"
        for row in done.contamination
    ]
    named = ", ".join(f"{suspect.id!r} {suspect.score:.3f}" for suspect in done.suspects)
    return [*lines, f"look at     {named}: the highest scores. Leave out what is OOD, and only that"]
