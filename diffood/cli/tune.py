"""diffood tune: which plan detects most at the cost that is allowed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.inputs import InputOptions
from diffood.cli.options.machine import FixedMachineOptions
from diffood.cli.options.parsers import png_file
from diffood.cli.options.records import expand_records
from diffood.cli.options.sets import NamedSet, collect_sets, sets_option
from diffood.cli.options.trust import TrustOptions, warn_if_unsigned
from diffood.cli.printing import print_result
from diffood.errors import EXIT_INTERRUPTED, UsageError
from diffood.runtime.inputs.outputs import refuse_outputs_inside

if TYPE_CHECKING:
    from diffood.calibration.tuning.choice import CostLimit

MOST_IMAGES = 400
MOST_DIGITS = 9


@expand_records
def tune(
    *,
    bundle: options.BundlePath,
    ind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help=f"In-distribution images that neither model was trained on. {options.INPUTS} Repeatable.",
        ),
    ] = None,
    ood: Annotated[
        list[NamedSet] | None, sets_option("An OOD set; repeatable. Default: made from in-distribution images.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Most UNet evaluations per in-distribution image, on average.")
    ] = None,
    latency: Annotated[
        float | None, typer.Option(metavar="MS", help="Most milliseconds per image, one image at a time, here.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N",
            help=f"Most in-distribution images to use (default: {MOST_IMAGES}); the others are left for `calibrate`. "
            "What is no number is taken as --ind.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.png", parser=png_file, help="Picture of cost against detection.")
    ] = None,
    machine: FixedMachineOptions,
    reading: InputOptions,
    trust: TrustOptions,
    as_json: options.AsJson = False,
) -> None:
    """Find the cheapest plan that detects as well as any.

    As well as any plan within --budget or --latency, up to chance. It becomes the bundle's default plan. The images
    that were used are noted in the bundle: `calibrate` fits no threshold on them.

    Example: diffood tune bundle --ind validation --ood digits=ood/digits --budget 4
    """
    from diffood.calibration.tune import TuneRequest, tune_bundle
    from diffood.calibration.tuning.images import FIT
    from diffood.cli.text.tuning import describe_speeds, describe_tuning

    inputs, most = _read_images(ind or [], images or [])
    refuse_outputs_inside(inputs, {"--output": output})
    request = TuneRequest(
        bundle=bundle,
        ind=inputs,
        limit=_read_limit(budget, latency),
        ood=collect_sets(ood, reserved=(FIT,)),
        images=most,
        engine=machine.request(),
        rules=reading.request(),
    )
    tuned = tune_bundle(request, progress.show_progress)
    if output is not None:
        from diffood.report.charts.tuning_front import draw_tuning

        draw_tuning(tuned, output)
    print_result(tuned, lambda done: [*describe_tuning(done), *describe_speeds(done.speeds, done.bundle.path)], as_json)
    warn_if_unsigned(bundle)
    if tuned.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    options.exit_if_set_aside(tuned.images.set_aside)


def _read_images(ind: list[str], images: list[str]) -> tuple[tuple[str, ...], int]:
    """The inputs and the number of images of --ind and --images: other verbs call the inputs --images."""
    numbers = [text for text in images if text.isdecimal() and len(text) <= MOST_DIGITS]
    inputs = (*ind, *(text for text in images if text not in numbers))
    if not inputs:
        raise UsageError("No images given: name in-distribution images with --ind INPUT.")
    return inputs, int(numbers[-1]) if numbers else MOST_IMAGES


def _read_limit(budget: float | None, latency: float | None) -> "CostLimit":
    from diffood.calibration.tuning.choice import CostLimit

    if budget is not None and latency is None:
        limit = CostLimit("evaluations", budget)
    elif latency is not None and budget is None:
        limit = CostLimit("milliseconds", latency)
    else:
        raise UsageError(
            "Say what an image may cost: either --budget in UNet evaluations or --latency in milliseconds."
        )
    if not 0 < limit.most < float("inf"):
        raise UsageError(f"An image cannot cost at most {limit.most:g}; give a number above 0.")
    return limit
