"""diffood export: two trained models to one bundle."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.engines import EngineOptions
from diffood.cli.options.inputs import InputOptions
from diffood.cli.options.models import PANEL, ModelOptions
from diffood.cli.options.parsers import Precisions
from diffood.cli.options.parsers import precisions as read_precisions
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions, warn_if_unsigned
from diffood.cli.printing import print_lines
from diffood.cli.progress import show_progress
from diffood.errors import UsageError
from diffood.export.class_names import read_class_names
from diffood.export.request import OPSET, ExportRequest, ProofScope
from diffood.export.run import run_export
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import CALIBRATION
from diffood.runtime.inputs.outputs import refuse_outputs_inside
from diffood.runtime.printable import shell_word


@expand_records
def export(
    *,
    output: Annotated[Path | None, typer.Option(help="Folder of the bundle to make.")] = None,
    models: ModelOptions,
    class_names: Annotated[
        Path | None, typer.Option(help="Text file, one class name per line.", rich_help_panel=PANEL)
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Add to this bundle instead: fp16 or int8 graphs, engines; if none, write detector.onnx again."
        ),
    ] = None,
    opset: Annotated[int, typer.Option(help="19 to 21; 20 for TensorRT before 10.9, as in JetPack 6.")] = OPSET,
    proof: Annotated[
        ProofScope, typer.Option(help="Compare with torch at the times plans use and 18 others, or at all (full).")
    ] = "quick",
    precision: Annotated[
        Precisions | None,
        typer.Option(metavar="P[,P]", parser=read_precisions, help="Of fp32, fp16, int8; fp32 is always kept."),
    ] = None,
    images: Annotated[
        list[str] | None,
        options.images_option("In-distribution images: to try the classifier on, and for int8."),
    ] = None,
    reading: InputOptions,
    engines: EngineOptions,
    trust: TrustOptions,
) -> None:
    """Export a classifier, and the UNet that judges with it, to a bundle.

    Without --unet the classifier judges alone, by its outputs and features. The bundle has ONNX graphs that were
    compared with torch and, with --engine, TensorRT engines of them.

    Example: diffood export --unet models/unet --classifier net.py:build --classifier-weights net.safetensors
    --output bundle --precision fp32,fp16 --engine tensorrt-rtx --gpu sm89
    """
    refuse_outputs_inside(images or (), {"--output": output})
    precisions = precision or ()
    sources = models.read()
    if sources is not None and class_names is not None:
        sources = replace(sources, class_names=read_class_names(class_names))
    request = ExportRequest(
        _choose_target(sources, output, bundle),
        sources,
        overwrite=overwrite,
        precisions=precisions,
        opset=opset,
        proof=proof,
        images=tuple(images or ()),
        rules=reading.request(),
        engines=engines.read(precisions),
    )
    run_export(request, print_lines, show_progress)
    print_lines(f"wrote       {request.bundle}")
    warn_if_unsigned(request.bundle)
    verb = "verify" if os.path.lexists(request.bundle / CALIBRATION) else "calibrate"
    print_lines(f"next        diffood {verb} {shell_word(request.bundle)} --images DIR")


def _choose_target(sources: ModelSources | None, output: Path | None, bundle: Path | None) -> Path:
    """The folder to make or to add to. Raises UsageError where it is not clear which."""
    if bundle is not None:
        if sources is not None or output is not None:
            raise UsageError("--bundle adds to an existing bundle; leave --unet, --classifier and --output out.")
        return bundle
    if sources is None or output is None:
        raise UsageError("--classifier and --output make a bundle, with --unet or without; --bundle adds to one.")
    return output
