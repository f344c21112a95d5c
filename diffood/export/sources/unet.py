"""Loads a diffusers UNet2DModel folder, safetensors only."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from diffood.errors import ExportError
from diffood.export.sources.scheduler import read_config
from diffood.export.sources.weights import hash_file
from diffood.runtime.images import ImageShape

if TYPE_CHECKING:
    from diffood.export.sources.autoencoder import Autoencoder

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class UNet:
    """A UNet and how it is asked: channels C, size (H, W), its labels, and where it came from.

    autoencoder: whose latents it denoises; None where they are images.

    model(x [B, C, H, W], time [B], class_labels [B]).sample -> [B, C or 2C, H, W]; of 2C the first C are predicted.
    """

    model: torch.nn.Module
    channels: int
    height: int
    width: int
    label_count: int
    origin: str
    sha256: str
    autoencoder: "Autoencoder | None" = None

    @property
    def image(self) -> ImageShape:
        """The images that are judged with it."""
        return self.autoencoder.image if self.autoencoder else ImageShape(self.channels, self.height, self.width)

    def labels(self, classes: int) -> Literal["none", "class", "class+null"]:
        """What the labels mean beside a classifier of `classes`; ExportError where the numbers do not fit."""
        if self.label_count == 0:
            return "none"
        if self.label_count == classes + 1:
            return "class+null"
        if self.label_count == classes:
            return "class"
        raise ExportError(
            f"The UNet knows {self.label_count} labels and the classifier {classes} classes: the UNet needs "
            f"{classes} of them, or {classes + 1} with the null class last. Check that both were trained on one set."
        )


def load_unet(folder: Path) -> UNet:
    """Load config.json and the safetensors weights of a UNet2DModel. Raises ExportError saying what is missing."""
    from diffusers import UNet2DModel

    if (folder / "unet" / "config.json").is_file():
        folder = folder / "unet"  # a pipeline's folder
    if not (folder / "config.json").is_file() or not (folder / WEIGHTS).is_file():
        raise ExportError(f"{folder} holds no diffusers UNet: config.json and {WEIGHTS} are needed there.")
    config = read_config(folder / "config.json")
    if config.get("_class_name") != "UNet2DModel":
        raise ExportError(f"{folder} is a {config.get('_class_name')}; UNet2DModel is what can be exported.")
    if config.get("class_embed_type") is not None:
        raise ExportError(f"class_embed_type {config['class_embed_type']!r} is not supported; use num_class_embeds.")
    size = config.get("sample_size")
    if size is None:
        raise ExportError(f"{folder / 'config.json'} names no sample_size; add the image size the UNet was trained at.")
    height, width = (size, size) if isinstance(size, int) else size
    channels, outputs = config["in_channels"], config["out_channels"]
    if outputs not in (channels, 2 * channels) or channels not in (1, 3):
        raise ExportError(f"The UNet maps {channels} to {outputs} channels; 1 or 3 to as many, or twice as many, work.")
    try:
        model = UNet2DModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except Exception as error:
        raise ExportError(f"diffusers cannot load {folder}: {error}") from None
    return UNet(
        model.eval().float().requires_grad_(False),
        channels,
        height,
        width,
        config.get("num_class_embeds") or 0,
        f"diffusers UNet2DModel {folder.name}",
        hash_file(folder / WEIGHTS),
    )
