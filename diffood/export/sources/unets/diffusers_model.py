"""Loads a model of a known diffusers class from a folder: a denoiser or an autoencoder."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import Weights, load_checkpoint
from diffood.export.sources.unets.scheduler import read_config
from diffood.export.sources.weights import fit_weights, hash_file

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = (WEIGHTS, "diffusion_pytorch_model.bin")
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # attention before diffusers 0.16


@dataclass(frozen=True)
class DiffusersModel:
    """A model that diffusers saved.

    Attributes:
        model: The module, float32, for inference.
        config: Its configuration, complete: diffusers' defaults are filled in.
        folder: Where it lies.
        sha256: Hash of its file of weights.

    """

    model: Any
    config: Any
    folder: Path
    sha256: str

    @property
    def origin(self) -> str:
        """Class and folder, for the user."""
        return f"diffusers {type(self.model).__name__} {self.folder.name}"


def load_diffusers(folder: Path, kind: Any) -> DiffusersModel:
    """Load a model of the diffusers class `kind`.

    It is built without memory first, so that no configuration can ask for more than the file of weights has.

    Raises:
        ExportError: A file is missing, the configuration is impossible, or the weights do not fit.

    """
    weights = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if weights is None:
        raise ExportError(
            f"{folder} holds no {WEIGHTS}: weights in one file are needed. Save the model again with diffusers: "
            f"{kind.__name__}.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)."
        )
    model = _build(folder, kind, "meta")
    found = _with_new_names(load_checkpoint(weights))
    computed = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
    for name in computed:  # old files hold them too
        found.pop(name, None)
    fit_weights(model, found, f"{folder.name}/{weights.name}")
    if computed:
        _take_buffers(model, _build(folder, kind, "cpu"), computed)
    return DiffusersModel(model.eval().requires_grad_(False), model.config, folder, hash_file(weights))


def _build(folder: Path, kind: Any, device: str) -> Any:
    config = read_config(folder / "config.json")
    try:
        with torch.device(device):
            return kind.from_config(config)
    except Exception as error:  # impossible configs fail in many ways
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExportError(f"diffusers cannot build {folder / 'config.json'}: {reason}") from None


def _with_new_names(weights: Weights) -> Weights:
    """Weights of diffusers before 0.16, whose attention had other names, under today's."""
    old = re.compile(rf"(attentions\.\d+)\.({'|'.join(_RENAMED)})\.(weight|bias)$")
    return {
        old.sub(lambda match: f"{match[1]}.{_RENAMED[match[2]]}.{match[3]}", name): value
        for name, value in weights.items()
    }


def _take_buffers(model: Any, other: Any, names: set[str]) -> None:
    """Give a model the buffers that another of the same configuration computed."""
    for name in names:
        place, _, buffer = name.rpartition(".")
        model.get_submodule(place).register_buffer(buffer, other.get_buffer(name), persistent=False)
