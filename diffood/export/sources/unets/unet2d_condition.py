"""Loads a diffusers UNet2DConditionModel folder that is conditioned on class labels, or on nothing; never on a text."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.json_config import read_config
from diffood.export.sources.libraries import import_diffusers
from diffood.export.sources.unets.denoiser import make_unet, read_sample_size
from diffood.export.sources.unets.diffusers_model import load_diffusers
from diffood.export.sources.unets.unet import UNet

# What adds an input that a class label does not give.
_OTHER_INPUTS = ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")


class WithoutText(nn.Module):
    """A UNet2DConditionModel without cross-attention, asked as a UNet2DModel: no layer reads encoder_hidden_states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x: torch.Tensor, time: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = False
    ) -> Any:
        """See UNet."""
        return self.model(x, time, None, class_labels=class_labels, return_dict=return_dict)


def load(folder: Path) -> UNet:
    """The UNet, for any number of channels. Raises ExportError where it attends to a text or needs other inputs."""
    size = read_sample_size(folder, read_config(folder / "config.json").get("sample_size"))
    loaded = load_diffusers(folder, import_diffusers("UNet2DConditionModel"))
    for name in _OTHER_INPUTS:
        if loaded.config.get(name) is not None:
            raise ExportError(
                f"{name} {loaded.config[name]!r} of {folder} is not supported; class labels come by num_class_embeds."
            )
    if any(getattr(module, "is_cross_attention", False) for module in loaded.model.modules()):
        raise ExportError(
            f"{folder} attends to encoder_hidden_states, the embedding of a text, which images do not have. A "
            "UNet2DConditionModel is supported with blocks without CrossAttn (DownBlock2D, AttnDownBlock2D, "
            "UNetMidBlock2D, …) and with num_class_embeds."
        )
    return make_unet(loaded, size, loaded.config["num_class_embeds"] or 0, WithoutText(loaded.model))
