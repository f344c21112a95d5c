"""Loads a diffusers UNet2DModel folder: of images, or of an autoencoder's latents."""

from pathlib import Path

from diffood.errors import ExportError
from diffood.export.sources.json_config import read_config
from diffood.export.sources.libraries import import_diffusers
from diffood.export.sources.unets.denoiser import make_unet, read_sample_size
from diffood.export.sources.unets.diffusers_model import load_diffusers
from diffood.export.sources.unets.unet import UNet

MAX_LAYERS = 32  # per block, and blocks


def load(folder: Path) -> UNet:
    """The UNet, for any number of channels. Raises ExportError saying what is missing or does not fit."""
    config = read_config(folder / "config.json")
    if config.get("class_embed_type") is not None:
        raise ExportError(f"class_embed_type {config['class_embed_type']!r} is not supported; use num_class_embeds.")
    embedding = config.get("time_embedding_type", "positional")
    if embedding != "positional":
        raise ExportError(
            f"time_embedding_type {embedding!r} is not supported: only positional is, which takes a step of the "
            "schedule."
        )
    layers = config.get("layers_per_block", 2)
    if not isinstance(layers, int) or max(layers, len(config.get("block_out_channels", ()))) > MAX_LAYERS:
        raise ExportError(f"{folder / 'config.json'} asks for more than {MAX_LAYERS} blocks or layers; check it.")
    size = read_sample_size(folder, config.get("sample_size"))
    loaded = load_diffusers(folder, import_diffusers("UNet2DModel"))
    return make_unet(loaded, size, loaded.config["num_class_embeds"] or 0)
