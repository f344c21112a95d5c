"""diffood export: two trained models to one bundle."""

import importlib
import os
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli import options
from diffood.errors import MissingExtraError, UsageError
from diffood.runtime.bundle import CALIBRATION, open_bundle
from diffood.runtime.engines import EngineLibrary, Profile


def export(
    output: Annotated[Path | None, typer.Option(help="Folder of the bundle to make.")] = None,
    unet: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE", help="Folder that diffusers saved, or a checkpoint (.pt, .ckpt, .safetensors)."
        ),
    ] = None,
    unet_config: Annotated[
        str | None,
        typer.Option(metavar="PRESET|FILE.json", help="What network the checkpoint holds, such as guided-imagenet256."),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="FILE.py:FACTORY (your own function), timm:NAME, torchvision:NAME, transformers:DIR, onnx:FILE.",
        ),
    ] = None,
    classifier_weights: Annotated[
        Path | None, typer.Option(help="Its weights: .safetensors, or a .pt or .pth file of tensors.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let timm or torchvision fetch its own weights; else nothing is fetched.")
    ] = False,
    logits_output: Annotated[
        str | None, typer.Option(metavar="TENSOR", help="Of onnx:FILE, where the logits are not found.")
    ] = None,
    features_output: Annotated[
        str | None, typer.Option(metavar="TENSOR", help="Of onnx:FILE, other features than those found.")
    ] = None,
    scheduler: Annotated[Path | None, typer.Option(help="Folder or file of scheduler_config.json.")] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size the classifier wants, if it does not say so.")
    ] = None,
    mean: Annotated[str | None, typer.Option(metavar="M[,M,M]", help="Mean to subtract, of pixels in 0..1.")] = None,
    std: Annotated[str | None, typer.Option(metavar="S[,S,S]", help="Deviation to divide by.")] = None,
    class_names: Annotated[Path | None, typer.Option(help="Text file, one class name a line.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Add to this bundle instead: int8 graphs, engines. Needs no torch.")
    ] = None,
    opset: Annotated[int, typer.Option(help="18 to 21; 20 for TensorRT before 10.9, as in JetPack 6.")] = 21,
    precision: Annotated[str, typer.Option(metavar="P[,P]", help="Of fp32, fp16, int8; fp32 is always kept.")] = "",
    images: Annotated[
        list[Path] | None, typer.Option(help="In-distribution images, for the value ranges of int8.")
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
        _require("torch", "diffusers", "onnx", "onnxscript", "safetensors")
        from diffood.export.build import Sources, export_bundle
        from diffood.export.sources.classifier import Preprocessing

        sources = Sources(
            unet=unet,
            classifier=classifier,
            classifier_weights=classifier_weights,
            scheduler=scheduler,
            unet_config=unet_config,
            preprocessing=Preprocessing(
                options.image_size(input_size), options.number_list("--mean", mean), options.number_list("--std", std)
            ),
            class_names=_names(class_names),
            download=download,
            logits=logits_output,
            features=features_output,
        )
        export_bundle(sources, target, overwrite=overwrite, report=typer.echo, precisions=precisions, opset=opset)
    if "int8" in precisions and images:
        _require("onnx", "torch")
        from diffood.export.images import read_some
        from diffood.export.quantize import IMAGES, quantize_bundle

        shape = open_bundle(target).manifest.image
        quantize_bundle(target, read_some(images, shape, IMAGES, typer.echo), report=typer.echo)
    if engine is not None:
        from diffood.export.engines import build_engines

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
