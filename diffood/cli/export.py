"""diffood export: two trained models to one bundle."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.errors import MissingExtraError, UsageError


def export(
    unet: Annotated[Path, typer.Option(help="Folder of a diffusers UNet2DModel (safetensors).")],
    classifier: Annotated[str, typer.Option(metavar="FILE.py:FACTORY", help="Function that builds the classifier.")],
    output: Annotated[Path, typer.Option(help="Folder of the bundle to make.")],
    classifier_weights: Annotated[Path | None, typer.Option(help="Its weights, .safetensors.")] = None,
    scheduler: Annotated[Path | None, typer.Option(help="Folder or file of scheduler_config.json.")] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size the classifier wants, if not the UNet's.")
    ] = None,
    mean: Annotated[str | None, typer.Option(metavar="M[,M,M]", help="Mean to subtract, of pixels in 0..1.")] = None,
    std: Annotated[str | None, typer.Option(metavar="S[,S,S]", help="Deviation to divide by.")] = None,
    class_names: Annotated[Path | None, typer.Option(help="Text file, one class name a line.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
) -> None:
    """Export a trained UNet and classifier to a bundle of ONNX graphs, proven equal to torch.

    Example: diffood export --unet models/unet --classifier net.py:build --classifier-weights net.safetensors
    --output bundle
    """
    try:
        import diffusers  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"`diffood export` needs {error.name}, which is not installed: pip install 'diffood[export]'"
        ) from None
    from diffood.export.build import Sources, export_bundle
    from diffood.export.sources.classifier import Preprocessing

    sources = Sources(
        unet=unet,
        classifier=classifier,
        classifier_weights=classifier_weights,
        scheduler=scheduler,
        preprocessing=Preprocessing(_size(input_size), _numbers("--mean", mean), _numbers("--std", std)),
        class_names=_names(class_names),
    )
    export_bundle(sources, output, overwrite=overwrite, report=typer.echo)
    typer.echo(f"wrote       {output}")
    typer.echo(f"next        diffood calibrate {output} --images DIR --fpr 0.05")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--input-size {text!r} is not of the form HxW, such as 224x224.") from None
    return height, width


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a list of numbers, such as 0.485,0.456,0.406.") from None


def _names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The class names in {path} cannot be read as UTF-8 text ({error}).") from None
    return tuple(line.strip() for line in lines if line.strip())
