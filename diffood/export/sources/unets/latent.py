"""Finds what a folder holds to denoise with: a model of images, or of latents with its autoencoder beside it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from diffood.errors import ExportError
from diffood.export.sources.unets.autoencoder import find_autoencoder, load_autoencoder
from diffood.export.sources.unets.diffusers_unet import load_folder
from diffood.export.sources.unets.dit import load_dit
from diffood.export.sources.unets.pretrained import (
    WEIGHTS,
    load_pretrained,
    require_channels,
    require_plain_embeddings,
    sample_size,
)
from diffood.export.sources.unets.scheduler import load_schedule, read_config
from diffood.export.sources.unets.unet import UNet
from diffood.export.sources.unets.unet_condition import load_condition_unet
from diffood.export.sources.weights import hash_file

PARTS = ("transformer", "unet")  # as diffusers' pipelines name what denoises


def denoiser_folder(folder: Path) -> Path:
    """The folder of the model itself, where a pipeline's is given; a scheduler and an autoencoder lie beside it."""
    return next((folder / part for part in PARTS if (folder / part / "config.json").is_file()), folder)


def load_denoiser(folder: Path, scheduler: Path | None = None) -> UNet:
    """Load a pipeline's folder or the model's own within it, with the autoencoder in ../vae or ../vqvae if any.

    scheduler: a scheduler config, or the folder of one, in the place of that beside the model.

    Raises ExportError saying what is missing, of another kind, or does not fit.
    """
    denoiser = denoiser_folder(folder)
    config = denoiser / "config.json"
    kind = read_config(config).get("_class_name") if config.is_file() else None
    autoencoder = find_autoencoder(denoiser.absolute().parent)
    if kind == "DiTTransformer2DModel":
        unet = load_dit(denoiser)
    elif kind == "UNet2DConditionModel":
        unet = load_condition_unet(denoiser)
    elif kind == "UNet2DModel" and autoencoder:
        unet = _load_latent_unet(denoiser)
    else:
        unet, autoencoder = load_folder(denoiser), None
    unet = replace(unet, schedule=load_schedule(denoiser.absolute(), scheduler))
    if autoencoder:
        return replace(unet, autoencoder=load_autoencoder(autoencoder, (unet.channels, unet.height, unet.width)))
    if unet.channels not in (1, 3):
        raise ExportError(
            f"{denoiser} takes {unet.channels} channels, so it denoises latents, and there is no autoencoder beside "
            f"it: give the pipeline's folder with vae/ or vqvae/ in it."
        )
    return unet


def _load_latent_unet(folder: Path) -> UNet:
    """A UNet2DModel of any number of channels."""
    from diffusers import UNet2DModel

    model: Any = load_pretrained(folder, UNet2DModel)
    config = model.config
    require_plain_embeddings(config)
    require_channels("The UNet", config["in_channels"], config["out_channels"])
    return UNet(
        model,
        config["in_channels"],
        *sample_size(folder, config["sample_size"]),
        config["num_class_embeds"] or 0,
        f"diffusers UNet2DModel {folder.name}",
        hash_file(folder / WEIGHTS),
    )
