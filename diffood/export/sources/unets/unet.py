"""What a UNet is to the export, and which source opens one: a diffusers folder, or a checkpoint with its config."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from diffood.errors import ExportError
from diffood.export.sources.unets.scheduler import PAPER, NoiseSchedule
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
