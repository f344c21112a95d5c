"""Small UNets of diffusers with random weights, for several tests: what differs is said where they are made."""

from typing import Any

ATTENTION = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}

ONE_LEVEL = {  # half the nodes, for tests that export
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "add_attention": False,
}


def small_unet(**changes: Any) -> Any:
    """A UNet2DModel of 1x8x8 images, two levels of eight channels, three classes and a null; the same every time."""
    import diffusers
    import torch

    torch.manual_seed(0)
    settings = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "num_class_embeds": 4,
    }
    return diffusers.UNet2DModel(**{**settings, **changes})
