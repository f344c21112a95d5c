"""Options that name the torch models of a bundle, for the verbs that load them, and what they say."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.errors import UsageError
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.model_sources import Sources

PANEL = "Models"

UNetPath = Annotated[
    Path | None,
    typer.Option(
        "--unet",
        metavar="DIR|FILE",
        help="Folder that diffusers saved, or a checkpoint (.pt, .ckpt, .safetensors).",
        rich_help_panel=PANEL,
    ),
]
UNetConfig = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET|FILE.json",
        help="What network the checkpoint holds, such as guided-imagenet256.",
        rich_help_panel=PANEL,
    ),
]
Scheduler = Annotated[Path | None, typer.Option(help="Folder or file of scheduler_config.json.", rich_help_panel=PANEL)]
ClassifierSpec = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        metavar="SPEC",
        help="FILE.py:FACTORY (your own function), timm:NAME, torchvision:NAME, transformers:DIR, onnx:FILE.",
        rich_help_panel=PANEL,
    ),
]
ClassifierWeights = Annotated[
    Path | None,
    typer.Option(help="Its weights: .safetensors, or a .pt or .pth file of tensors.", rich_help_panel=PANEL),
]
Download = Annotated[
    bool,
    typer.Option(
        "--download",
        help="Let timm or torchvision fetch its own weights; else nothing is fetched.",
        rich_help_panel=PANEL,
    ),
]
LogitsOutput = Annotated[
    str | None,
    typer.Option(metavar="TENSOR", help="Of onnx:FILE, where the logits are not found.", rich_help_panel=PANEL),
]
FeaturesOutput = Annotated[
    str | None,
    typer.Option(metavar="TENSOR", help="Of onnx:FILE, other features than those found.", rich_help_panel=PANEL),
]
InputSize = Annotated[
    str | None,
    typer.Option(metavar="HxW", help="Size the classifier wants, if it does not say so.", rich_help_panel=PANEL),
]
Mean = Annotated[
    str | None, typer.Option(metavar="M[,M,M]", help="Mean to subtract, of pixels in 0..1.", rich_help_panel=PANEL)
]
Std = Annotated[str | None, typer.Option(metavar="S[,S,S]", help="Deviation to divide by.", rich_help_panel=PANEL)]


def read_sources(
    *,
    unet: Path,
    unet_config: str | None,
    scheduler: Path | None,
    classifier: str,
    classifier_weights: Path | None,
    download: bool,
    logits_output: str | None,
    features_output: str | None,
    input_size: str | None,
    mean: str | None,
    std: str | None,
) -> Sources:
    """The models the options name, none of them opened yet. UsageError for a size or number that is none."""
    return Sources(
        unet=unet,
        classifier=classifier,
        classifier_weights=classifier_weights,
        scheduler=scheduler,
        unet_config=unet_config,
        preprocessing=Preprocessing(_image_size(input_size), _numbers("--mean", mean), _numbers("--std", std)),
        download=download,
        logits=logits_output,
        features=features_output,
    )


def _image_size(text: str | None) -> tuple[int, int] | None:
    """Read "224x224" as (height, width); UsageError for another form."""
    if text is None:
        return None
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"--input-size {text!r} is not of the form HxW, such as 224x224.") from None
    return height, width


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read "0.485,0.456"; UsageError naming the option for what is no number."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a list of numbers, such as 0.485,0.456,0.406.") from None
