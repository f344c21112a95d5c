"""diffood export: two trained models to one bundle."""

import importlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options import models as model_options
from diffood.cli.options import shared as options
from diffood.errors import MissingExtraError, UsageError
from diffood.runtime.bundle.bundle import CALIBRATION, open_bundle
from diffood.runtime.bundle.engines import EngineLibrary, Profile


def export(
    output: Annotated[Path | None, typer.Option(help="Folder of the bundle to make.")] = None,
    unet: model_options.UNetPath = None,
    unet_config: model_options.UNetConfig = None,
    scheduler: model_options.Scheduler = None,
    classifier: model_options.ClassifierSpec = None,
    classifier_weights: model_options.ClassifierWeights = None,
    download: model_options.Download = False,
    logits_output: model_options.LogitsOutput = None,
    features_output: model_options.FeaturesOutput = None,
    input_size: model_options.InputSize = None,
    mean: model_options.Mean = None,
    std: model_options.Std = None,
    class_names: Annotated[
        Path | None, typer.Option(help="Text file, one class name a line.", rich_help_panel=model_options.PANEL)
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Add to this bundle instead: int8 graphs, engines. Needs no torch.")
    ] = None,
    opset: Annotated[int, typer.Option(help="18 to 21; 20 for TensorRT before 10.9, as in JetPack 6.")] = 21,
    precision: Annotated[str, typer.Option(metavar="P[,P]", help="Of fp32, fp16, int8; fp32 is always kept.")] = "",
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT", help="In-distribution images, for the value ranges of int8. " + options.INPUTS),
    ] = None,
    engine: Annotated[
        EngineLibrary | None, typer.Option(help="Also build TensorRT engines.", rich_help_panel="Engines")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="smNN[,smNN]", help="GPUs to build for, no GPU needed (tensorrt-rtx).", rich_help_panel="Engines"
        ),
    ] = None,
    engine_batch: Annotated[
        str, typer.Option(metavar="MIN,USUAL,MAX", help="Rows of an engine call.", rich_help_panel="Engines")
    ] = "1,32,64",
    workspace: Annotated[
        int | None, typer.Option(metavar="MB", min=1, help="Memory the builder may use.", rich_help_panel="Engines")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="File that makes the next build faster.", rich_help_panel="Engines")
    ] = None,
) -> None:
    """Export a trained UNet and classifier to a bundle of ONNX graphs, proven equal to torch; build engines of them.

    Example: diffood export --unet models/unet --classifier net.py:build --classifier-weights net.safetensors
    --output bundle --precision fp32,fp16 --engine tensorrt-rtx --gpu sm89
    """
    precisions = options.precision_list(precision)
    if bundle is not None:
        if unet or classifier or output:
            raise UsageError("--bundle adds to a bundle there is; leave --unet, --classifier and --output out.")
        if engine is None and not ("int8" in precisions and images):
            raise UsageError("--bundle has nothing to add: give --engine, or --precision int8 with --images DIR.")
        target = bundle
    else:
        if unet is None or classifier is None or output is None:
            raise UsageError("--unet, --classifier and --output make a bundle; --bundle adds to one.")
        target = output
    held = open_bundle(bundle).precisions if bundle is not None else ()
    if "int8" in precisions and not images and "int8" not in held:
        raise UsageError("int8 needs the value ranges of real images: add --images DIR with in-distribution ones.")
    if gpu and engine is None:
        raise UsageError("--gpu names what engines are built for: add --engine tensorrt-rtx.")
    if not 18 <= opset <= 21:
        raise UsageError(f"--opset {opset} is not possible: choose 18 to 21.")
    profile = _profile(engine_batch)
    if unet and classifier:
        sources = model_options.read_sources(
            unet=unet,
            unet_config=unet_config,
            scheduler=scheduler,
            classifier=classifier,
            classifier_weights=classifier_weights,
            download=download,
            logits_output=logits_output,
            features_output=features_output,
            input_size=input_size,
            mean=mean,
            std=std,
        )
        sources = replace(sources, class_names=_names(class_names))
        _require("torch", "diffusers", "onnx", "onnxscript", "safetensors")
        from diffood.export.build import export_bundle

        export_bundle(sources, target, overwrite=overwrite, report=typer.echo, precisions=precisions, opset=opset)
    if "int8" in precisions and images:
        _require("onnx", "torch")
        from diffood.export.images import read_some
        from diffood.export.int8.quantize import IMAGES, quantize_bundle

        shape = open_bundle(target).manifest.image
        quantize_bundle(target, read_some(images, shape, IMAGES, typer.echo), report=typer.echo)
    if engine is not None:
        from diffood.export.engines.build import build_engines

        build_engines(
            target,
            engine,
            gpus=tuple(gpu.split(",")) if gpu else (),
            precisions=precisions or open_bundle(target).precisions,
            profile=profile,
            workspace_mb=workspace,
            timing_cache=timing_cache,
            report=typer.echo,
        )
    typer.echo(f"wrote       {target}")
    verb = "verify" if os.path.lexists(target / CALIBRATION) else "calibrate"
    typer.echo(f"next        diffood {verb} {target} --images DIR")


def _require(*packages: str) -> None:
    try:
        for package in packages:
            importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"`diffood export` needs {error.name}, which is not installed: pip install 'diffood[export]'"
        ) from None


def _profile(text: str) -> Profile:
    try:
        smallest, usual, largest = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--engine-batch {text!r} is not of the form MIN,USUAL,MAX, such as 1,32,64.") from None
    if not 1 <= smallest <= usual <= largest:
        raise UsageError(f"--engine-batch {text!r} must ascend from 1 or more.")
    return Profile(smallest=smallest, usual=usual, largest=largest)


def _names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The class names in {path} cannot be read as UTF-8 text ({error}).") from None
    return tuple(line.strip() for line in lines if line.strip())
