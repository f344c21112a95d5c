"""Turns a denoiser that diffusers saved into a UNet of the export."""

from pathlib import Path

import torch

from diffood.errors import ExportError
from diffood.export.sources.unets.diffusers_model import DiffusersModel
from diffood.export.sources.unets.unet import UNet

MAX_SIZE = 4096  # pixels of a side


def make_unet(
    loaded: DiffusersModel, size: tuple[int, int], labels: int, module: torch.nn.Module | None = None
) -> UNet:
    """The UNet of the export that a loaded denoiser is.

    Args:
        loaded: Its config has in_channels and out_channels.
        size: (H, W) it was trained at.
        labels: How many it knows.
        module: Takes the arguments a UNet2DModel takes, where the model itself does not.

    Raises:
        ExportError: It does not predict its input's channels, or with a learned sigma twice as many.

    """
    channels, outputs = loaded.config["in_channels"], loaded.config["out_channels"]
    if outputs not in (channels, None, 2 * channels):
        raise ExportError(
            f"{loaded.folder} maps {channels} to {outputs} channels; the same number, or twice as many, is supported."
        )
    return UNet(module or loaded.model, channels, *size, labels, loaded.origin, loaded.sha256, notes=loaded.notes)


def read_sample_size(folder: Path, size: object) -> tuple[int, int]:
    """(H, W) of a config's sample_size, a number or a pair. Raises ExportError where it is neither."""
    pair = (size, size) if isinstance(size, int) else size
    match pair:
        case [int(height), int(width)] if 1 <= height <= MAX_SIZE and 1 <= width <= MAX_SIZE:
            return height, width
    raise ExportError(
        f"{folder / 'config.json'} has sample_size {size!r}; it must be the image size the model was trained at, "
        f"one number or height and width of 1 to {MAX_SIZE}, for example 32."
    )
