"""What a UNet is to the export, and which source opens one: a diffusers folder, or a checkpoint with its config."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from diffood.errors import ExportError, UsageError
from diffood.export.sources.unets.edm import Preconditioned
from diffood.export.sources.unets.scheduler import PAPER, NoiseSchedule, load_schedule
from diffood.runtime.images.decode import ImageShape

if TYPE_CHECKING:
    from diffood.export.sources.unets.autoencoder import Autoencoder


@dataclass(frozen=True)
class UNet:
    """A UNet and how it is asked: channels C, size (H, W), its labels, where it came from, and its schedule.

    model(x [B, C, H, W], time [B], class_labels=[B], return_dict=False)[0] is [B, C or 2C, H, W]; of 2C the first C are
    predicted. Time counts the schedule's steps.
    autoencoder: whose latents it denoises; None where they are images.
    """

    model: torch.nn.Module
    channels: int
    height: int
    width: int
    label_count: int
    origin: str
    sha256: str
    schedule: NoiseSchedule = PAPER
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


def load_unet(spec: str | Path, config: str | None = None, scheduler: Path | None = None) -> UNet:
    """Open a diffusers folder, or a checkpoint file with `config`, a preset's name or a .json file.

    scheduler: a scheduler config, or the folder of one, that wins over what the source says of its schedule.
    Raises ExportError and UsageError saying what is missing or does not fit.
    """
    path = Path(spec)
    if path.is_dir():
        if config is not None:
            raise UsageError(f"--unet-config is for checkpoint files; the folder {path} has its own config.json.")
        from diffood.export.sources.unets.latent import load_denoiser

        unet = load_denoiser(path, scheduler)
    elif path.is_file():
        from diffood.export.sources.unets.checkpoint_unet import load_checkpoint_unet

        unet = load_checkpoint_unet(path, config)
        unet = replace(unet, schedule=load_schedule(path, scheduler)) if scheduler else unet
    else:
        raise ExportError(f"No UNet at {path}; give a folder that diffusers saved, or a checkpoint file.")
    model = unet.model.eval().float().requires_grad_(False)
    if how := unet.schedule.preconditioning:
        # The clipping is of images; latents have no such range.
        how = replace(how, clip=False) if unet.autoencoder else how
        model = Preconditioned(model, how, unet.channels).eval()
    return replace(unet, model=model)
