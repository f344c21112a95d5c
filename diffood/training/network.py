"""Builds the UNet of a size for images of a shape."""

from typing import Any

import torch

from diffood.export.sources.libraries import import_diffusers
from diffood.runtime.images.decode import ImageShape
from diffood.training.images import count_levels
from diffood.training.request import UNetSize


def build_unet(size: UNetSize, shape: ImageShape, labels: int, seed: int) -> Any:
    """An untrained diffusers UNet2DModel; labels counts the null class, and is 0 for a UNet without classes."""
    levels = count_levels(shape.height, shape.width)
    widths = tuple(size.widths[min(level, len(size.widths) - 1)] for level in range(levels))
    sides = [max(shape.height, shape.width) >> level for level in range(levels)]
    attended = [side <= size.attended for side in sides]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return import_diffusers("UNet2DModel")(
            sample_size=(shape.height, shape.width),
            in_channels=shape.channels,
            out_channels=shape.channels,
            block_out_channels=widths,
            layers_per_block=size.layers,
            down_block_types=tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attended),
            up_block_types=tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attended)),
            norm_num_groups=size.groups,
            attention_head_dim=size.head,
            num_class_embeds=labels or None,
        )
