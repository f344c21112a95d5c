"""DiffOOD's DDIM network, which is that of Song et al. 2021 with a label embedding, as a diffusers UNet2DModel."""

import re
from collections.abc import Callable

import torch

from diffood.export.sources.unets.presets import DDIMConfig

_NAMES = {  # diffusers' parts of a name: theirs; the longer ones first
    "time_embedding.linear_1": "temb.dense.0",
    "time_embedding.linear_2": "temb.dense.1",
    "class_embedding": "label_emb",
    "conv_norm_out": "norm_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "time_emb_proj": "temb_proj",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "down_blocks": "down",
    "resnets": "block",
    "attentions": "attn",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
}


def build_ddim(config: DDIMConfig, labels: int) -> torch.nn.Module:
    """The network with names of diffusers: one head, sines first, padding on two sides where the image is halved."""
    from diffusers import UNet2DModel

    attention = [config.image_size >> level in config.attn_resolutions for level in range(len(config.ch_mult))]
    model: torch.nn.Module = UNet2DModel(
        sample_size=config.image_size,
        in_channels=config.in_channels,
        out_channels=config.in_channels,
        block_out_channels=tuple(config.ch * factor for factor in config.ch_mult),
        layers_per_block=config.num_res_blocks,
        down_block_types=tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attention),
        up_block_types=tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)),
        num_class_embeds=labels or None,
        attention_head_dim=None,
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=0,
        norm_eps=1e-6,
    )
    return model


def official_names(levels: int) -> Callable[[str], str]:
    """From a name in diffusers' module to the one in the checkpoint, whose up blocks are counted from the full size."""

    def rename(name: str) -> str:
        for ours, theirs in _NAMES.items():
            name = name.replace(ours, theirs)
        return re.sub(r"^up_blocks\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", name)

    return rename
