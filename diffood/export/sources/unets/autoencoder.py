"""Loads the autoencoder of a latent diffusion pipeline: diffusers' AutoencoderKL or VQModel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffood.errors import ExportError
from diffood.export.sources.json_config import read_config
from diffood.export.sources.libraries import import_diffusers
from diffood.export.sources.unets.diffusers_model import load_diffusers
from diffood.runtime.images.decode import ImageShape

FOLDERS = ("vae", "vqvae")  # as diffusers' pipelines name them


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder, the images it takes, and how its latents are scaled.

    A latent is (encoded - offset)·scale; of AutoencoderKL's distribution the mean is taken.

    Attributes:
        model: Has encoder, quant_conv, post_quant_conv, decoder and, where vector-quantised, quantize.embedding.
        image: Its images.
        channels: Of its latents.
        height: Of its latents.
        width: Of its latents.
        offset: One value per channel.
        scale: One value per channel.
        origin: What it was loaded from, for the user.
        sha256: Hash of its file of weights.
    """

    model: Any
    image: ImageShape
    channels: int
    height: int
    width: int
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    origin: str
    sha256: str

    @property
    def codes(self) -> torch.nn.Embedding | None:
        """The code book of a vector-quantised autoencoder, None where there is none."""
        codes: torch.nn.Embedding | None = self.model.quantize.embedding if hasattr(self.model, "quantize") else None
        return codes


def find_autoencoder(pipeline: Path) -> Path | None:
    """The folder of a pipeline's autoencoder, if it has one."""
    return next((pipeline / name for name in FOLDERS if (pipeline / name / "config.json").is_file()), None)


def load_autoencoder(folder: Path, latent: tuple[int, int, int]) -> Autoencoder:
    """Load the autoencoder whose latents (C, H, W) a model denoises.

    Raises ExportError where it is of another kind, its weights do not load, or its latents are of another shape.
    """
    kinds = {"AutoencoderKL": import_diffusers("AutoencoderKL"), "VQModel": import_diffusers("VQModel")}
    name = read_config(folder / "config.json").get("_class_name")
    if name not in kinds:
        raise ExportError(f"{folder} is a {name}; the autoencoders that can be exported are {' and '.join(kinds)}.")
    loaded = load_diffusers(folder, kinds[name])
    model, config = loaded.model, loaded.config
    if config.get("norm_type", "group") != "group":
        raise ExportError(f"norm_type {config['norm_type']!r} of {folder} is not supported; group is.")
    channels = config.get("vq_embed_dim") or config["latent_channels"]
    if config["in_channels"] != config["out_channels"] or config["in_channels"] not in (1, 3):
        raise ExportError(
            f"The autoencoder maps images of {config['in_channels']} channels to {config['out_channels']}; the "
            "same number, 1 or 3, is supported."
        )
    if channels != latent[0]:
        raise ExportError(
            f"The autoencoder {folder} has latents of {channels} channels, the model to export takes {latent[0]}: "
            "give two that were trained together."
        )
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    image = ImageShape(config["in_channels"], latent[1] * factor, latent[2] * factor)
    _require_sizes(model, config["latent_channels"], latent, image)
    offset, scale = _scaling(config, channels, folder)
    origin = f"{loaded.origin}, latents scaled by {config['scaling_factor']:g}"
    return Autoencoder(model, image, *latent, offset, scale, origin, loaded.sha256)


def _require_sizes(model: Any, inner: int, latent: tuple[int, int, int], image: ImageShape) -> None:
    """Try both halves on zeros: every level but the last should halve the size, and double it."""
    with torch.no_grad():
        encoded = model.encoder(torch.zeros(1, image.channels, image.height, image.width)).shape[2:]
        decoded = model.decoder(torch.zeros(1, inner, *latent[1:])).shape[2:]
    if tuple(encoded) != latent[1:] or tuple(decoded) != (image.height, image.width):
        raise ExportError(
            f"The autoencoder encodes {image.height}x{image.width} to {'x'.join(map(str, encoded))} and decodes "
            f"{latent[1]}x{latent[2]} to {'x'.join(map(str, decoded))}: they do not invert each other."
        )


def _scaling(config: Any, channels: int, folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Offset and scale of each channel, as diffusers' pipelines have them."""
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    offsets = [config.get("shift_factor") or 0.0] * channels if mean is None else mean
    deviations = [1.0] * channels if deviation is None else deviation
    try:
        scales = [float(config["scaling_factor"]) / float(value) for value in deviations]
        offset, scale = tuple(map(float, offsets)), tuple(scales)
        fits = len(offset) == len(scale) == channels and all(0 < abs(value) < float("inf") for value in scale)
    except (TypeError, ValueError, ZeroDivisionError):
        fits = False
    if not fits:
        raise ExportError(
            f"{folder / 'config.json'} does not say how latents are scaled: scaling_factor, and shift_factor or "
            f"latents_mean and latents_std of {channels} channels, are numbers, got {config['scaling_factor']!r}, "
            f"{config.get('shift_factor')!r}, {mean!r}, {deviation!r}."
        )
    return offset, scale
