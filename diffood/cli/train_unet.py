"""diffood train-unet: images to a UNet that `diffood export` takes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.inputs import InputOptions
from diffood.cli.options.limits import LimitOptions
from diffood.cli.options.models import PANEL, ClassifierOptions
from diffood.cli.options.parsers import ImageSize, image_size
from diffood.cli.options.records import expand_records
from diffood.cli.printing import print_lines
from diffood.cli.progress import show_progress
from diffood.export.class_names import read_class_names
from diffood.runtime.inputs.outputs import refuse_outputs_inside
from diffood.runtime.printable import shell_word
from diffood.training.request import (
    PICTURE_EVERY,
    DeviceChoice,
    LabelSource,
    SizeName,
    TrainingPrecision,
    TrainingRequest,
)
from diffood.training.run import run_training


def _machine(help_text: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel="Machine")


@expand_records
def train_unet(
    *,
    images: Annotated[list[str], options.images_option("In-distribution images.")],
    output: Annotated[Path, typer.Option(help="Folder of the UNet; a training that was stopped there continues.")],
    size: Annotated[SizeName, typer.Option(help="How large a UNet: 1.5, 11 or 36 million parameters.")] = "tiny",
    shape: Annotated[
        ImageSize | None,
        typer.Option("--image-size", metavar="HxW", parser=image_size, help="Default: the images' own, or up to 64."),
    ] = None,
    labels: Annotated[LabelSource, typer.Option(help="Where the class of an image comes from.")] = "auto",
    steps: Annotated[int | None, typer.Option(help="Most steps; default: the size's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Most minutes; the rate falls towards their end.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step; default: the size's.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and draws.")] = 0,
    picture_every: Annotated[int, typer.Option(help="Steps between two pictures of samples; 0: none.")] = PICTURE_EVERY,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier training there.")] = False,
    classifier: ClassifierOptions,
    class_names: Annotated[
        Path | None, typer.Option(help="Text file, one class name per line.", rich_help_panel=PANEL)
    ] = None,
    reading: InputOptions,
    device: Annotated[DeviceChoice, _machine("auto: a CUDA GPU if there is one.")] = "auto",
    precision: Annotated[TrainingPrecision, _machine("auto: bf16 where the device multiplies in it.")] = "auto",
    threads: Annotated[int, _machine("Threads of torch; 0: all cores.")] = 0,
    image_limits: LimitOptions,
) -> None:
    """Train a UNet on your own images.

    It is conditioned on the classes of the folders, or on the predictions of --classifier.

    Example: diffood train-unet --images train --classifier net.py:build --classifier-weights net.safetensors
    --output unet --minutes 60
    """
    refuse_outputs_inside(images, {"--output": output})
    request = TrainingRequest(
        images=tuple(images),
        output=output,
        size=size,
        classifier=classifier.read_classifier(),
        class_names=read_class_names(class_names) if class_names else None,
        labels=labels,
        shape=shape,
        steps=steps,
        minutes=minutes,
        batch=batch,
        seed=seed,
        picture_every=picture_every,
        device=device,
        precision=precision,
        threads=threads,
        overwrite=overwrite,
        rules=reading.request(),
        limits=image_limits.read(),
    )
    trained = run_training(request, print_lines, show_progress)
    source = f" --classifier {shell_word(classifier.classifier)}" if classifier.classifier else " --classifier SPEC"
    print_lines(f"next        diffood export --unet {shell_word(output)}{source} --output bundle")
    options.exit_if_set_aside(trained.set_aside)
