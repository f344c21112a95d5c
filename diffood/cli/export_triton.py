"""diffood export-triton: a calibrated bundle as a model of NVIDIA Triton Inference Server."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.limits import LimitOptions
from diffood.cli.options.machine import MachineOptions
from diffood.cli.options.records import expand_records
from diffood.serving.triton.config import TritonSettings
from diffood.serving.triton.repository import DEFAULT_NAME, DEFAULT_QUEUE_DELAY, write_repository


@expand_records
def export_triton(
    *,
    bundle: options.BundlePath,
    output: Annotated[Path, typer.Option(metavar="REPO", help="Model repository to make; must not exist.")],
    name: Annotated[str, typer.Option(help="The model's name, by which clients ask for it.")] = DEFAULT_NAME,
    machine: MachineOptions,
    queue_delay: Annotated[
        int,
        typer.Option(
            metavar="MICROSECONDS",
            help="How long a request may wait for others to share its batch.",
            rich_help_panel="Machine",
        ),
    ] = DEFAULT_QUEUE_DELAY,
    image_limits: LimitOptions,
) -> None:
    """Write a model repository for Triton Inference Server.

    Image files in, the columns of serve-batch's rows out, over HTTP and gRPC.

    Example: diffood export-triton bundle --output models && tritonserver --model-repository "$PWD/models"
    """
    settings = TritonSettings(**asdict(machine), **asdict(image_limits))
    model = write_repository(bundle, output, settings, name=name, queue_delay=queue_delay)
    typer.echo(f"model       {name}, up to {settings.batch} images per call")
    typer.echo(f"wrote       {model}")
    typer.echo(f'serve       tritonserver --model-repository "{output.absolute()}", where diffood is installed')
