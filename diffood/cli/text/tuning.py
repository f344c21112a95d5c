"""What `diffood tune` prints of what it found, in lines. Prints nothing itself."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffood.calibration.metrics.formatting import points
from diffood.calibration.scored_files import IND
from diffood.calibration.tuning.choice import TUNED
from diffood.calibration.tuning.images import FIT
from diffood.calibration.tuning.timing import Speed
from diffood.cli.text.conversions import describe_conversions_by_set
from diffood.cli.text.plan import describe_plan
from diffood.cli.text.tables import table_lines
from diffood.runtime.bundle.bundle import CALIBRATION
from diffood.runtime.method.plan import DEFAULT, FAST, Plan
from diffood.runtime.printable import shell_word

if TYPE_CHECKING:
    from diffood.calibration.metrics.intervals import Difference
    from diffood.calibration.tune import Tuned
    from diffood.calibration.tuning.candidates import PlanCandidate

HEADS = (
    *("", "start/\nstride", "sampler", "repeats\n(stage)", "guidance", "witnesses"),
    *("cost", "mean\nAUROC", "95%", "worst\nAUROC", "on"),
)
SHORT = {  # names of witnesses in the table's narrow column; the line below the table says what they are
    DEFAULT.witnesses: "four",
    FAST.witnesses: "three",
}


def describe_tuning(tuned: "Tuned") -> list[str]:
    """Lines that say what was measured on which images, what the front is, and what was chosen and why."""
    unit = "UNet evaluations" if tuned.limit.kind == "evaluations" else "milliseconds, one image at a time,"
    return [
        *_images(tuned),
        f"limit       {tuned.limit.describe()} on average{_measured_on(tuned)}",
        f"measured    {len(tuned.candidates)} plans; {tuned.skipped} more are beyond the limit",
        "",
        *table_lines(HEADS, _rows(tuned)),
        "",
        f"Cost: {unit} per in-distribution image. Four witnesses: {', '.join(DEFAULT.witnesses)};",
        "three: without the jump. AUROC in percent, with 95% intervals. Listed: plans that no other beats in both.",
        "",
        *_below_chance(tuned),
        *(
            ["interrupted before all was measured: nothing was written except which images were used"]
            if tuned.interrupted
            else _choice(tuned)
        ),
    ]


def _images(tuned: "Tuned") -> list[str]:
    images = tuned.images
    sets = ", ".join(f"{name} {group.count}" for name, group in images.groups.items() if name not in (FIT, IND))
    lines = [
        f"images      {len(images.used)} of {tuned.listed} in-distribution files: {images.groups[FIT].count} fit, "
        f"{images.groups[IND].count} measure",
        *([f"trained on  {tuned.trained} of these images, by the UNet; give others"] if tuned.trained else []),
        f"ood         {sets}",
    ]
    if images.made:
        lines.append("            made from the images that fit; real ones, given with --ood, say more")
    used = {name: group.count for name, group in images.groups.items()} | {IND: len(images.used)}
    changed = ((name, found, used[name]) for name, found in images.conversions.items())
    return [*lines, *describe_conversions_by_set(changed)]


def _below_chance(tuned: "Tuned") -> list[str]:
    found = tuned.below_chance
    if not found.best:
        return []
    best = max(found.best, key=lambda one: one.mean.value).mean
    kept = tuned.choice.chosen.plan in found.left_out
    out = "would be left out, but no other is within the limit" if kept else "are left out"
    interval = f"{_percent(best.low)} to {_percent(best.high)}"
    return [
        f"jump        the paper's score alone is below chance on these images in {len(found.best)} of {found.ways} "
        f"ways to denoise: mean AUROC at most {_percent(best.value)} ({interval}), 50 is "
        f"guessing. The {len(found.left_out)} plans that use it there {out}"
    ]


def _choice(tuned: "Tuned") -> list[str]:
    choice, bundle = tuned.choice, tuned.bundle
    chosen, count = choice.chosen, len(tuned.images.used)
    again = " --overwrite" if os.path.lexists(bundle.path / CALIBRATION) else ""
    return [
        f"chosen      {describe_plan(chosen.plan, chosen.plan.evaluations(bundle.tables(chosen.plan)))}",
        f"why         the cheapest within the limit that {_told(choice.below_best, chosen is choice.best)}",
        f"at any cost the best of all that was measured has {_percent(choice.anywhere.mean.value)} at "
        f"{choice.anywhere.cost:.3g}; the chosen one is {_points(choice.below_anywhere)} points below",
        f"note        {_percent(chosen.mean.value)} is optimistic: it selected this plan from {len(tuned.candidates)} "
        "candidates",
        f"wrote       plan {TUNED!r} into {bundle.path}, as its default",
        f"next        diffood calibrate {shell_word(bundle.path)} --images DIR{again}: an earlier calibration is not "
        "of this plan",
        f"            The {count} images used are noted in tuning.json; no threshold is fitted on them",
    ]


def describe_speeds(speeds: Sequence[Speed], bundle: Path) -> list[str]:
    """Lines that say how fast the chosen plan is here, and how to ask for the fastest."""
    timed = [speed for speed in speeds if speed.latency is not None]
    if not timed:
        return [f"speed       not measured: {speed.error}" for speed in speeds]
    batches = sorted({batch for speed in timed for batch in speed.images_per_second})
    rows = []
    for speed in timed:
        rates = (speed.images_per_second.get(batch) for batch in batches)  # None: the engine does not take so many
        cells = ("-" if rate is None else f"{rate:.0f}/s" for rate in rates)
        rows.append((str(speed.engine), *cells, f"{speed.latency:.1f} ms"))
    fastest = max(timed, key=lambda speed: max(speed.images_per_second.values(), default=0.0))
    batch = max(fastest.images_per_second, key=fastest.images_per_second.__getitem__, default=1)
    command = f"diffood serve-batch {shell_word(bundle)} INPUT --output FILE --batch {batch}"
    heads = ("", *(f"batch {batch}" for batch in batches), "one image")
    lines = ["", *table_lines(heads, rows), ""]
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
    plan, worst, mean = found.plan, found.worst, found.mean
    stages = ",".join(map(str, plan.stages))
    return (
        name,
        f"{','.join(map(str, plan.start_times))}/{plan.stride}",
        plan.sampler,
        f"{plan.repeats} ({stages})" if stages else f"{plan.repeats}    ",
        f"{plan.guidance:g}",
        _witnesses(plan),
        f"{found.cost:.3g}",
        _percent(mean.value),
        f"{100 * mean.low:.1f}-{100 * mean.high:.1f}",
        _percent(found.auroc[worst]),
        worst.removeprefix("made: "),
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
    return f"{100 * below.value:.2f} ({points(below.low)} to {points(below.high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
