"""diffood bench: the paper's own loop and every way to run a bundle, side by side on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.inputs import InputOptions
from diffood.cli.options.machine import VariantOptions
from diffood.cli.options.models import ModelOptions
from diffood.cli.options.parsers import png_file
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_lines, print_messages, print_result
from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.inputs.outputs import refuse_outputs_inside
from diffood.runtime.inputs.reading import InputRules

IMAGES = 1000  # taken evenly from --images, and timed in turn


@dataclass(frozen=True)
class TimingOptions:
    """How long is timed, and what besides speed."""

    seconds: Annotated[float, typer.Option(help="Time for each contender.", min=0)] = 30.0
    rounds: Annotated[int, typer.Option(help="Rounds the time is divided into.", min=1, max=1000)] = 7
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Time the loop by torch.compile too, which takes a minute.")
    ] = True
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Measure peak memory too, in a process for each contender.")
    ] = True


@expand_records
def bench(
    *,
    bundle: options.BundlePath,
    images: Annotated[
        list[str] | None,
        options.images_option("Real images of the kind that is served; the embedded ones by default."),
    ] = None,
    reading: InputOptions,
    timing: TimingOptions,
    plan: Annotated[
        list[str] | None, typer.Option(help="Plan of the bundle; give it once for each. Default: all.")
    ] = None,
    machine: VariantOptions,
    models: ModelOptions,
    output: Annotated[Path | None, typer.Option(metavar="FILE.png", parser=png_file, help="A chart.")] = None,
    trust: TrustOptions,
    as_json: options.AsJson = False,
) -> None:
    """Time this bundle and the paper's loop on this machine.

    Every way to run the bundle here and the paper's own loop take turns on the same images.

    The torch models are those of `diffood export`; the embedded ones are found. Without torch they are skipped.

    Example: diffood bench bundle --images validation --seconds 60 --output bench.png
    """
    from diffood.bench.bench import BenchRequest, run_bench
    from diffood.bench.compare import Budget
    from diffood.cli.text.comparison import describe_bench
    from diffood.zoo.models import embedded_models

    refuse_outputs_inside(images or (), {"--output": output})
    given, manifest = models.read(), open_bundle(bundle).manifest
    if given is not None and given.unet is None:
        raise UsageError("--unet is missing: the paper's loop in torch takes both models.")
    request = BenchRequest(
        bundle,
        _read_images(images or [], manifest.image, reading.request()),
        Budget(timing.seconds, timing.rounds),
        plan or (),
        machine.backend_name,
        machine.precision or (),
        machine.batch,
        machine.threads,
        given or embedded_models(manifest),
        timing.compiled,
        timing.memory,
    )
    result = run_bench(request, progress.show_progress)
    if output is not None:
        from diffood.report.charts.bench_comparison import draw_comparison

        draw_comparison(result.comparison, output)
    print_result(result, describe_bench, as_json)
    if output is not None and not as_json:
        print_lines(f"wrote       {output}")


def _read_images(inputs: list[str], shape: ImageShape, rules: InputRules) -> npt.NDArray[np.uint8]:
    """The images given, or embedded ones: those of the pair that takes this shape, else clothes, which it refuses."""
    if inputs:
        from diffood.export.images import read_sample  # needs no torch

        return read_sample(inputs, shape, IMAGES, print_messages, rules)
    from diffood.zoo.images import load_set
    from diffood.zoo.pairs import PAIRS

    fitting = [pair for pair in PAIRS.values() if pair.shape == shape] or [PAIRS["clothes"]]
    images = load_set(fitting[0].test).images
    planes: npt.NDArray[np.uint8] = images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2)
    return planes
