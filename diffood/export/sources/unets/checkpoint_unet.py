"""Loads a UNet from a checkpoint file of OpenAI's or DiffOOD's repositories and its hyper-parameters."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import Weights, load_checkpoint
from diffood.export.sources.unets.ddim_unet import build_ddim, official_names
from diffood.export.sources.unets.edm import CONSISTENCY_TIME, Preconditioning
from diffood.export.sources.unets.openai_unet import OpenAIUNet, Shape
from diffood.export.sources.unets.presets import CheckpointConfig, DDIMConfig, OpenAIConfig, load_checkpoint_config
from diffood.export.sources.unets.scheduler import NoiseSchedule, make_schedule, precondition
from diffood.export.sources.unets.unet import UNet
from diffood.export.sources.weights import fit_weights, hash_file

LABELS = "label_emb.weight"  # [labels, width] in both layouts


def load_checkpoint_unet(path: Path, spec: str | None) -> UNet:
    """Load the network of a checkpoint; spec: a preset's name or a .json file. Raises ExportError and UsageError."""
    config = load_checkpoint_config(spec, path)
    weights = load_checkpoint(path)
    labels = _count_labels(weights, path)
    model = build(config, labels)
    fit_weights(model, weights, path.name, names_of(config))
    return UNet(
        model,
        config.in_channels,
        config.image_size,
        config.image_size,
        labels,
        f"{path.name} as {config.name}",
        hash_file(path),
        schedule_of(config),
    )


def build(config: CheckpointConfig, labels: int) -> torch.nn.Module:
    """The network of a config on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        return build_ddim(config, labels) if isinstance(config, DDIMConfig) else OpenAIUNet(_shape(config, labels))


def names_of(config: CheckpointConfig) -> Callable[[str], str]:
    """From a name in the module to the one in the checkpoint."""
    return official_names(len(config.ch_mult)) if isinstance(config, DDIMConfig) else str


def schedule_of(config: CheckpointConfig) -> NoiseSchedule:
    """The schedule a checkpoint was trained with."""
    origin = f"{config.noise_schedule}, of {config.name}"
    steps = config.diffusion_steps
    if config.noise_schedule == "edm":
        return precondition(Preconditioning(steps, time_scale=CONSISTENCY_TIME), origin)
    if config.noise_schedule == "consistency":
        return precondition(Preconditioning(steps, time_scale=CONSISTENCY_TIME, boundary=True, clip=True), origin)
    diffusers: dict[str, Any] = {"num_train_timesteps": steps}
    if config.noise_schedule == "cosine":
        diffusers["beta_schedule"] = "squaredcos_cap_v2"
    elif isinstance(config, DDIMConfig):
        diffusers |= {"beta_start": config.beta_start, "beta_end": config.beta_end}
    else:  # improved_diffusion/gaussian_diffusion.py: Ho et al.'s betas, scaled to the number of steps
        diffusers |= {"beta_start": 1e-4 * 1000 / steps, "beta_end": 0.02 * 1000 / steps}
    if isinstance(config, OpenAIConfig) and config.predict_xstart:
        diffusers["prediction_type"] = "sample"
    return make_schedule(diffusers, origin)


def _shape(config: OpenAIConfig, labels: int) -> Shape:
    return Shape(
        channels=config.in_channels,
        outputs=config.in_channels * (2 if config.learn_sigma else 1),
        num_channels=config.num_channels,
        num_res_blocks=config.num_res_blocks,
        channel_mult=config.channel_mult,
        attention_levels=config.attention_levels,
        heads=(config.num_heads, config.num_head_channels),
        heads_upsample=config.num_heads_upsample or config.num_heads,
        scale_shift=config.use_scale_shift_norm,
        resblock_updown=config.resblock_updown,
        new_attention_order=config.use_new_attention_order,
        labels=labels,
        time_scale=1000 / config.diffusion_steps if config.rescale_timesteps else 1.0,
    )


def _count_labels(weights: Weights, path: Path) -> int:
    """Labels the checkpoint embeds; 0 where it has no embedding."""
    if LABELS not in weights:
        return 0
    shape = weights[LABELS].shape
    if len(shape) != 2 or math.prod(shape) == 0:
        raise ExportError(f"{LABELS!r} in {path.name} has the shape {list(shape)}; labels x width belong there.")
    return shape[0]
