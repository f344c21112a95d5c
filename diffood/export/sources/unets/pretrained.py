"""Loads a model of a known diffusers class from a folder, and the checks that all of them share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffood.errors import ExportError

WEIGHTS = "diffusion_pytorch_model.safetensors"


def load_pretrained(folder: Path, kind: Any) -> torch.nn.Module:
    """A model of the diffusers class `kind`, float32, for inference; its config is complete, defaults filled in.

    Raises ExportError where the weights are missing or do not fit.
    """
    if not (folder / WEIGHTS).is_file():
        raise ExportError(
            f"{folder} holds no {WEIGHTS}: weights in one safetensors file are needed. Save the model again with "
            f"diffusers: {kind.__name__}.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)."
        )
    options = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
    try:
        model, found = kind.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:  # a config that does not hold fails in a dozen ways
        raise ExportError(f"diffusers cannot load {folder}: {' '.join(str(error).split())[:500]}") from None
    # Of weights that are missing diffusers makes random ones. Buffers it computes may lie in old files.
    strays = sorted({*found["missing_keys"], *found["unexpected_keys"]} - {name for name, _ in model.named_buffers()})
    if strays:
        raise ExportError(
            f"The weights in {folder} are not those of its config.json: {len(strays)} names are in one of them alone, "
            f"such as {strays[0][:200]!r}. Save the model again with diffusers."
        )
    loaded: torch.nn.Module = model.eval().float().requires_grad_(False)
    return loaded


def require_channels(what: str, channels: int, outputs: int) -> None:
    """ExportError where a denoiser does not predict its input's channels, or with a learned sigma twice as many."""
    if outputs not in (channels, 2 * channels):
        raise ExportError(f"{what} maps {channels} to {outputs} channels; to as many, or twice as many, works.")


def require_plain_embeddings(config: Mapping[str, Any]) -> None:
    """ExportError for a UNet2DModel that is not asked with a step of its schedule and a label's number."""
    if config.get("class_embed_type") is not None:
        raise ExportError(f"class_embed_type {config['class_embed_type']!r} is not supported; use num_class_embeds.")
    kind = config.get("time_embedding_type", "positional")
    if kind != "positional":
        raise ExportError(
            f"time_embedding_type {kind!r} is not supported: such a UNet is not asked with a step of its schedule. "
            "Only positional works."
        )


def sample_size(folder: Path, size: object) -> tuple[int, int]:
    """(H, W) of a config's sample_size, a number or a pair. ExportError where it is neither."""
    pair = (size, size) if isinstance(size, int) else size
    match pair:
        case [int(height), int(width)] if height >= 1 and width >= 1:
            return height, width
    raise ExportError(
        f"{folder / 'config.json'} has sample_size {size!r}, not the height and width the model was trained at: "
        "add them, for example 32."
    )
