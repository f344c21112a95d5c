"""DiffOOD's DDIM network, which is that of Song et al. 2021 with a label embedding, as a diffusers UNet2DModel."""

import re
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from diffood.export.sources.libraries import import_diffusers
from diffood.export.sources.unets.checkpoint_config import Blocks, CheckpointConfig, Sizes, Width

_NAMES = {  # part of a name in diffusers: in the checkpoint; longer parts first
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


class DDIMConfig(CheckpointConfig):
    """The `Model` and `Schedule` of a DiffOOD configuration of struc DDIM, by their names (after Song et al. 2021)."""

    layout: Literal["ddim"]
    ch: Width = 128
    ch_mult: Annotated[tuple[Annotated[int, Field(ge=1, le=32)], ...], Field(min_length=1, max_length=10)]
    num_res_blocks: Blocks = 2
    attn_resolutions: Sizes = (16,)
    noise_schedule: Literal["linear", "cosine"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02

    @model_validator(mode="after")
    def _fits(self) -> "DDIMConfig":
        if self.image_size % 2 ** (len(self.ch_mult) - 1):
            raise ValueError(f"an image of {self.image_size} cannot be halved {len(self.ch_mult) - 1} times")
        return self

    def build(self, labels: int) -> torch.nn.Module:
        """See CheckpointConfig."""
        with torch.device("meta"):
            return build_ddim(self, labels)

    def checkpoint_name(self, name: str) -> str:
        """Of diffusers' parts of a name those of the checkpoint, whose up blocks are counted from the full size."""
        for diffusers, official in _NAMES.items():
            name = name.replace(diffusers, official)
        last = len(self.ch_mult) - 1
        return re.sub(r"^up_blocks\.(\d+)", lambda match: f"up.{last - int(match[1])}", name)

    def scheduler_config(self) -> dict[str, Any]:
        """The first and the last beta."""
        return {"beta_start": self.beta_start, "beta_end": self.beta_end}


def build_ddim(config: DDIMConfig, labels: int) -> torch.nn.Module:
    """The network with names of diffusers: one head, sines first, padding on two sides where the image is halved."""
    attention = [config.image_size >> level in config.attn_resolutions for level in range(len(config.ch_mult))]
    model: torch.nn.Module = import_diffusers("UNet2DModel")(
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
