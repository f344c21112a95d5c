"""diffood export-triton: a calibrated bundle as a model of NVIDIA Triton Inference Server."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options import shared as options
from diffood.runtime.detector import DEFAULT_BATCH
from diffood.runtime.images.decode import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from diffood.serving.triton.config import TritonSettings
from diffood.serving.triton.repository import DEFAULT_NAME, DEFAULT_QUEUE_DELAY, write_repository


def export_triton(
    bundle: options.BundlePath,
    output: Annotated[Path, typer.Option(metavar="REPO", help="Model repository to make; must not exist.")],
    name: Annotated[str, typer.Option(help="The model's name, by which clients ask for it.")] = DEFAULT_NAME,
    backend: options.BackendName = "auto",
    precision: options.PrecisionName = None,
    batch: options.Batch = DEFAULT_BATCH,
    threads: options.Threads = 0,
    queue_delay: Annotated[
        int,
        typer.Option(
            metavar="MICROSECONDS",
            help="How long a request may wait for others to share its batch.",
            rich_help_panel="Machine",
        ),
    ] = DEFAULT_QUEUE_DELAY,
    max_pixels: options.MaxPixels = DEFAULT_MAX_PIXELS,
    max_bytes: options.MaxBytes = DEFAULT_MAX_BYTES,
) -> None:
    """Write a model repository for Triton Inference Server.

    Image files in, the columns of serve-batch's rows out, over HTTP and gRPC.

    Example: diffood export-triton bundle --output models && tritonserver --model-repository "$PWD/models"
    """
    settings = TritonSettings(
        backend=backend,
        precision=precision,
        batch=batch,
        threads=threads,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
    )
    model = write_repository(bundle, output, settings, name=name, queue_delay=queue_delay)
    typer.echo(f"model       {name}, up to {batch} images a call")
    typer.echo(f"wrote       {model}")
    typer.echo(f'serve       tritonserver --model-repository "{output.absolute()}", where diffood is installed')
