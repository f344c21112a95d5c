"""What a UNet is to the export."""

from dataclasses import dataclass
from typing import Literal

import torch

from diffood.errors import ExportError
from diffood.export.sources.unets.autoencoder import Autoencoder
from diffood.export.sources.unets.scheduler import PAPER, NoiseSchedule
from diffood.runtime.bundle.trained import Hashes
from diffood.runtime.images.decode import ImageShape


@dataclass(frozen=True)
class UNet:
    """A denoiser and how it is asked.

    Attributes:
        model: model(x [B, C, H, W], time [B], class_labels=[B], return_dict=False)[0] is [B, C or 2C, H, W]; of 2C
            channels the first C are predicted. Time counts the schedule's steps.
        channels: C, of images or latents.
        height: H, of images or latents.
        width: W, of images or latents.
        label_count: Labels it knows, 0 where it takes none.
        origin: What it was loaded from, for the user.
        sha256: Hash of its file of weights.
        schedule: Noise levels it was trained on.
        notes: What else the user should know, one line each.
        autoencoder: Whose latents it denoises; None where it denoises images.
        class_names: What its labels are, in their order, without the null class; None where its folder does not say.
        trained_on: Short hashes of the images it was trained on, uint64 [N]; None where its folder does not say.

    """

    model: torch.nn.Module
    channels: int
    height: int
    width: int
    label_count: int
    origin: str
    sha256: str
    schedule: NoiseSchedule = PAPER
    notes: tuple[str, ...] = ()
    autoencoder: Autoencoder | None = None
    class_names: tuple[str, ...] | None = None
    trained_on: Hashes | None = None

    @property
    def denoises(self) -> bool:
        """Whether there is a network; not so in what stands for the UNet of a bundle without."""
        return not isinstance(self.model, torch.nn.Identity)

    @property
    def image(self) -> ImageShape:
        """The images that are judged with it."""
        return self.autoencoder.image if self.autoencoder else ImageShape(self.channels, self.height, self.width)

    def labels(self, classes: int) -> Literal["none", "class", "class+null"]:
        """What the labels mean with a classifier of so many classes. Raises ExportError where they do not fit."""
        if self.label_count == 0:
            return "none"
        if self.label_count == classes + 1:
            return "class+null"
        if self.label_count == classes:
            return "class"
        raise ExportError(
            f"The UNet has {self.label_count} labels and the classifier {classes} classes: the UNet needs "
            f"{classes} of them, or {classes + 1} with the null class last. Check that both were trained on one set."
        )


def no_unet(image: ImageShape) -> UNet:
    """What stands for the UNet in an export of the classifier alone: the shape of the images, and no network."""
    return UNet(torch.nn.Identity(), image.channels, image.height, image.width, 0, "none", "0" * 64)
