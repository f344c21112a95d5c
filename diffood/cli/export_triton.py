"""diffood export-triton: a calibrated bundle as a model of NVIDIA Triton Inference Server."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.limits import LimitOptions
from diffood.cli.options.machine import MachineOptions
from diffood.cli.options.parsers import backend_choice
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_lines
from diffood.errors import UsageError
from diffood.runtime.backends import AUTO, BACKENDS
from diffood.runtime.detector import DEFAULT_BATCH
from diffood.runtime.printable import shell_word
from diffood.serving.triton.config import TritonSettings
from diffood.serving.triton.native import NativeSettings, write_native_model
from diffood.serving.triton.python_backend import write_decoding_model
from diffood.serving.triton.repository import DEFAULT_NAME, DEFAULT_QUEUE_DELAY, ModelPlace

PANEL = "Machine"


@dataclass(frozen=True)
class ServerOptions(MachineOptions):
    """What Triton runs the model on."""

    backend: Annotated[
        str,
        typer.Option(
            parser=backend_choice,
            autocompletion=lambda: [AUTO, *BACKENDS],
            metavar=f"[{'|'.join((AUTO, *BACKENDS))}]",
            help="auto: a GPU where the server has one.",
            rich_help_panel=PANEL,
        ),
    ] = AUTO
    batch: Annotated[int, typer.Option(help="Most images per call.", rich_help_panel=PANEL)] = DEFAULT_BATCH


@expand_records
def export_triton(
    *,
    bundle: options.BundlePath,
    output: Annotated[Path, typer.Option(metavar="REPO", help="Model repository to make; must not exist.")],
    name: Annotated[str, typer.Option(help="The model's name, by which clients ask for it.")] = DEFAULT_NAME,
    decode_images: Annotated[
        bool,
        typer.Option(
            "--decode-images", help="Take the bytes of image files: Triton's Python backend, with diffood installed."
        ),
    ] = False,
    machine: ServerOptions,
    engine: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TensorRT engine of detector.onnx, built where it will run: Triton's TensorRT backend.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(metavar="N", help="How many of the model run at a time.", rich_help_panel=PANEL)
    ] = 1,
    queue_delay: Annotated[
        int,
        typer.Option(
            metavar="MICROSECONDS",
            help="How long a request may wait for others to share its batch.",
            rich_help_panel=PANEL,
        ),
    ] = DEFAULT_QUEUE_DELAY,
    image_limits: LimitOptions,
    trust: TrustOptions,
) -> None:
    """Write a model repository for Triton Inference Server.

    Pixels in, verdicts out, by Triton's own backends; with --decode-images image files in and serve-batch's rows out.

    Example: diffood export-triton bundle --output models && tritonserver --model-repository "$PWD/models"
    """
    place = ModelPlace(output, name, instances, queue_delay)
    if decode_images:
        if engine is not None:
            raise UsageError("--engine is for Triton's TensorRT backend; it does not go with --decode-images.")
        settings = TritonSettings(**asdict(machine.request()), **asdict(image_limits))
        model, needs = write_decoding_model(bundle, place, settings), ", where diffood is installed"
    else:
        if image_limits != LimitOptions():
            raise UsageError("--max-pixels and --max-bytes go with --decode-images: pixels have the model's own size.")
        native = NativeSettings(**asdict(machine.request()), engine=engine)
        model, needs = write_native_model(bundle, place, native), ""
    print_lines(f"model       {name}, up to {machine.batch} images per call")
    print_lines(f"wrote       {model}")
    print_lines(f"serve       tritonserver --model-repository {shell_word(output.absolute())}{needs}")
