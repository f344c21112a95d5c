"""Loads a diffusers UNet2DModel folder."""

import re
from pathlib import Path
from typing import Any

import torch

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import Weights, load_checkpoint
from diffood.export.sources.unets.pretrained import WEIGHTS, require_plain_embeddings
from diffood.export.sources.unets.scheduler import read_config
from diffood.export.sources.unets.unet import UNet
from diffood.export.sources.weights import fit_weights, hash_file

_FILES = (WEIGHTS, "diffusion_pytorch_model.bin")
MAX_SIZE = 4096  # pixels of a side
MAX_LAYERS = 32  # a block, and blocks
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # attention before diffusers 0.16


def load_folder(folder: Path) -> UNet:
    """Load config.json and the weights of a UNet2DModel. Raises ExportError saying what is missing or does not fit."""
    _require_pixels(folder.absolute().parent)
    weights = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if not (folder / "config.json").is_file() or weights is None:
        raise ExportError(f"{folder} holds no diffusers UNet: config.json and {WEIGHTS} are needed there.")
    config = read_config(folder / "config.json")
    height, width = _require_supported(config, folder)
    model = _build(config, folder)
    fit_weights(model, _with_new_names(load_checkpoint(weights)), f"{folder.name}/{weights.name}")
    return UNet(
        model,
        config.get("in_channels", 3),
        height,
        width,
        config.get("num_class_embeds") or 0,
        f"diffusers UNet2DModel {folder.name}",
        hash_file(weights),
    )


def _require_pixels(pipeline: Path) -> None:
    """Refuse a pipeline whose UNet works on what an autoencoder makes of images."""
    path = pipeline / "model_index.json"
    parts = read_config(path) if path.is_file() else {}
    latent = sorted(parts.keys() & {"vae", "vqvae"})
    if latent:
        raise ExportError(
            f"The UNet of {pipeline} works on the latents of its {latent[0]}, which is missing; copy the whole folder."
        )


def _require_supported(config: dict[str, Any], folder: Path) -> tuple[int, int]:
    """Height and width of a config that can be exported; ExportError with the reason for any other."""
    if config.get("_class_name") != "UNet2DModel":
        raise ExportError(
            f"{folder} is a {config.get('_class_name')}; what can be exported is a UNet2DModel, or, with its "
            "autoencoder beside it, a UNet2DConditionModel or DiTTransformer2DModel."
        )
    require_plain_embeddings(config)
    size = config.get("sample_size")
    if size is None:
        raise ExportError(f"{folder / 'config.json'} names no sample_size; add the image size the UNet was trained at.")
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list) or len(sides) != 2 or not all(_is_count(side, MAX_SIZE) for side in sides):
        raise ExportError(f"sample_size of {folder / 'config.json'} is {size!r}; sides of 1 to {MAX_SIZE} pixels work.")
    channels, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if channels not in (1, 3) or outputs not in (channels, 2 * channels):
        raise ExportError(f"The UNet maps {channels} to {outputs} channels; 1 or 3 to as many, or twice as many, work.")
    blocks = config.get("block_out_channels", ())
    if not _is_count(config.get("layers_per_block", 2), MAX_LAYERS) or len(blocks) > MAX_LAYERS:
        raise ExportError(f"{folder / 'config.json'} asks for more than {MAX_LAYERS} blocks or layers; check it.")
    return sides[0], sides[1]


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and 1 <= value <= most


def _build(config: dict[str, Any], folder: Path) -> torch.nn.Module:
    """The module without memory for its weights, so that no config can ask for more than the file has."""
    from diffusers import UNet2DModel

    try:
        with torch.device("meta"):
            model: torch.nn.Module = UNet2DModel.from_config(config)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(
            f"diffusers cannot build {folder / 'config.json'}: {reason or type(error).__name__}"
        ) from None
    return model


def _with_new_names(weights: Weights) -> Weights:
    """Weights of diffusers before 0.16, whose attention had other names, under today's."""
    old = re.compile(rf"(attentions\.\d+)\.({'|'.join(_RENAMED)})\.(weight|bias)$")
    return {
        old.sub(lambda match: f"{match[1]}.{_RENAMED[match[2]]}.{match[3]}", name): value
        for name, value in weights.items()
    }
