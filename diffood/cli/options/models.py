"""Options that name the torch models of a bundle, for the verbs that load them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options.parsers import ImageSize, Numbers, image_size, numbers
from diffood.errors import UsageError
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.classifiers.registry import FORMS
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources

PANEL = "Models"


@dataclass(frozen=True)
class ClassifierOptions:
    """A classifier, and what it does not say itself, as given on the command line."""

    classifier: Annotated[str | None, typer.Option(metavar="SPEC", help=f"{FORMS}.", rich_help_panel=PANEL)] = None
    classifier_weights: Annotated[
        Path | None,
        typer.Option(help="Its weights: .safetensors, or a .pt or .pth file of tensors.", rich_help_panel=PANEL),
    ] = None
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Let timm or torchvision fetch its own weights; else nothing is fetched.",
            rich_help_panel=PANEL,
        ),
    ] = False
    logits_output: Annotated[
        str | None,
        typer.Option(metavar="TENSOR", help="Of onnx:FILE, where the logits are not found.", rich_help_panel=PANEL),
    ] = None
    features_output: Annotated[
        str | None,
        typer.Option(metavar="TENSOR", help="Of onnx:FILE, other features than those found.", rich_help_panel=PANEL),
    ] = None
    input_size: Annotated[
        ImageSize | None,
        typer.Option(
            metavar="N|HxW",
            parser=image_size,
            help="Size the classifier wants, if it does not say so: 224, or height x width.",
            rich_help_panel=PANEL,
        ),
    ] = None
    mean: Annotated[
        Numbers | None,
        typer.Option(
            metavar="M[,M,M]", parser=numbers, help="Mean to subtract, of pixels in 0..1.", rich_help_panel=PANEL
        ),
    ] = None
    std: Annotated[
        Numbers | None,
        typer.Option(metavar="S[,S,S]", parser=numbers, help="Deviation to divide by.", rich_help_panel=PANEL),
    ] = None

    def read_classifier(self) -> ClassifierSource | None:
        """The classifier that the options name, not opened yet; None where none is named."""
        if self.classifier is None:
            return None
        return ClassifierSource(
            self.classifier,
            self.classifier_weights,
            Preprocessing(self.input_size, self.mean, self.std),
            download=self.download,
            logits=self.logits_output,
            features=self.features_output,
        )


@dataclass(frozen=True)
class ModelOptions(ClassifierOptions):
    """A classifier and a UNet, and what they do not say themselves, as given on the command line."""

    unet: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Folder that diffusers saved, or a checkpoint (.pt, .ckpt, .safetensors).",
            rich_help_panel=PANEL,
        ),
    ] = None
    unet_config: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET|FILE.json",
            help="What network the checkpoint holds, such as guided-imagenet256.",
            rich_help_panel=PANEL,
        ),
    ] = None
    scheduler: Annotated[
        Path | None, typer.Option(help="Folder or file of scheduler_config.json.", rich_help_panel=PANEL)
    ] = None

    def read(self) -> ModelSources | None:
        """The models the options name, none of them opened yet; None where neither is named.

        Raises UsageError for a UNet without a classifier.
        """
        classifier = self.read_classifier()
        if self.unet is None and classifier is None:
            return None
        if classifier is None:
            raise UsageError("--classifier is missing: give it alone, or with --unet.")
        if self.unet is None and (self.unet_config or self.scheduler):
            raise UsageError("--unet-config and --scheduler are about a UNet: add --unet.")
        return ModelSources(self.unet, classifier, unet_config=self.unet_config, scheduler=self.scheduler)
