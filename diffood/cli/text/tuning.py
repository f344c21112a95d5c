"""What `diffood tune` prints of what it found, in lines. Prints nothing itself."""

from typing import TYPE_CHECKING

from diffood.calibration.scored_files import IND
from diffood.calibration.tuning.choice import TUNED
from diffood.calibration.tuning.images import FIT
from diffood.cli.text.evaluation import align
from diffood.cli.text.plan import describe_plan
from diffood.runtime.method.plan import DEFAULT, FAST, Plan

if TYPE_CHECKING:
    from diffood.calibration.metrics.intervals import Difference
    from diffood.calibration.tune import Tuned
    from diffood.calibration.tuning.candidates import PlanCandidate

HEADS = ("starts", "stride", "sampler", "repeats", "stages", "guidance", "witnesses", "cost", "mean AUROC", "worst set")
SHORT = {  # names of witnesses in the table's narrow column; the line below it says what they are
    DEFAULT.witnesses: "four",
    FAST.witnesses: "three",
}


def describe_tuning(tuned: "Tuned") -> list[str]:
    """Lines that say what was looked at, what the front is, and what was chosen and why."""
    choice, images, bundle = tuned.choice, tuned.images, tuned.bundle
    sets = ", ".join(f"{name} {group.count}" for name, group in images.groups.items() if name not in (FIT, IND))
    unit = "UNet evaluations" if tuned.limit.kind == "evaluations" else "milliseconds, one image at a time, of"
    lines = [
        f"images      {len(images.used)} of {tuned.listed} in-distribution files: {images.groups[FIT].count} fit, "
        f"{images.groups[IND].count} measure",
        f"ood         {sets}",
    ]
    if images.made:
        lines.append("            made from the images that fit, for want of real ones: with --ood this says more")
    lines += [
        f"limit       {tuned.limit.describe()} on average{_measured_on(tuned)}",
        f"measured    {len(tuned.candidates)} plans, {tuned.skipped} not: beyond the limit",
        "",
        *align([("", *HEADS), *_rows(tuned)]),
        "",
        f"Cost: {unit} an in-distribution image. Four witnesses: {', '.join(DEFAULT.witnesses)};",
        "three: without the jump. AUROC in percent, with 95% intervals. Listed: plans that no other beats in both.",
        "",
    ]
    if tuned.interrupted:
        return [*lines, "interrupted before all was measured: nothing was written but which images were looked at"]
    chosen = choice.chosen
    lines += [
        f"chosen      {describe_plan(chosen.plan, chosen.plan.evaluations(bundle.tables(chosen.plan)))}",
        f"why         the cheapest within the limit that {_told(choice.below_best, chosen is choice.best)}",
        f"at any cost the best of all that was measured has {_percent(choice.anywhere.mean.value)} at "
        f"{choice.anywhere.cost:.3g}; the chosen one is {_points(choice.below_anywhere)} points below",
        f"beware      {_percent(chosen.mean.value)} was used to choose this plan among {len(tuned.candidates)}: "
        "on new images expect less",
        f"wrote       plan {TUNED!r} into {bundle.path}, as its default",
        f"next        diffood calibrate {bundle.path} --images DIR: an earlier calibration is not of this plan. The "
        f"{len(images.used)}",
        "            images looked at are noted in tuning.json; no threshold is fitted on them",
    ]
    return lines


def describe_speeds(tuned: "Tuned") -> list[str]:
    """Lines that say how fast the chosen plan is here, and how to ask for the fastest."""
    speeds = tuned.speeds
    timed = [speed for speed in speeds if speed.latency is not None]
    if not timed:
        return [f"speed       not measured: {speed.error}" for speed in speeds]
    batches = list(timed[0].images_per_second)
    rows = [("", *(f"batch {batch}" for batch in batches), "one image")]
    for speed in timed:
        rates = [f"{speed.images_per_second[batch]:.0f}/s" for batch in batches]
        rows.append((str(speed.engine), *rates, f"{speed.latency:.1f} ms"))
    fastest = max(timed, key=lambda speed: max(speed.images_per_second.values()))
    batch = max(fastest.images_per_second, key=fastest.images_per_second.__getitem__)
    command = f"diffood serve-batch {tuned.bundle.path} INPUT --output FILE --batch {batch}"
    lines = ["", *align(rows), ""]
    lines += [f"not timed   {speed.engine}: {speed.error}" for speed in speeds if speed.latency is None]
    lines.append(
        f"fastest     {command} --backend {fastest.engine.backend} --precision {fastest.engine.precision}"
        + (
            ", once calibrated"
            if fastest.engine.precision == "fp32"
            else ", once calibrated and `diffood verify` passed"
        )
    )
    return lines


def _rows(tuned: "Tuned") -> list[tuple[str, ...]]:
    chosen = tuned.choice.chosen
    rows = [_row("chosen" if found is chosen else "", found) for found in tuned.choice.front]
    if all(found is not chosen for found in tuned.choice.front):
        rows.append(_row("chosen", chosen))
    return rows + [_row(name, found) for name, found in tuned.compared.items()]


def _row(name: str, found: "PlanCandidate") -> tuple[str, ...]:
    plan, worst = found.plan, found.worst
    return (
        name,
        ",".join(map(str, plan.start_times)),
        str(plan.stride),
        plan.sampler,
        str(plan.repeats),
        ",".join(map(str, plan.stages)) or "-",
        f"{plan.guidance:g}",
        _witnesses(plan),
        f"{found.cost:.3g}",
        f"{_percent(found.mean.value)} ({_percent(found.mean.low)}-{_percent(found.mean.high)})",
        f"{_percent(found.auroc[worst])} {worst}",
    )


def _measured_on(tuned: "Tuned") -> str:
    engine = tuned.latency_engine
    if engine is None:
        return ""
    why = "the fastest that `diffood verify` let pass" if engine.gated else "`diffood verify` let no faster one pass"
    return f", one at a time, {engine} ({why})"


def _witnesses(plan: Plan) -> str:
    return SHORT.get(plan.witnesses, "+".join(plan.witnesses))


def _told(below: "Difference", best: bool) -> str:
    if best:
        return "is as good as the best: it is the best"
    return f"is as good as the best there: {_points(below)} points below it"


def _points(below: "Difference") -> str:
    return f"{100 * below.value:.2f} ({100 * below.low:+.2f} to {100 * below.high:+.2f})"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
