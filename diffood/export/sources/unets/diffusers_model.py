"""Loads a model of a known diffusers class from a folder: a denoiser or an autoencoder."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import open_checkpoint
from diffood.export.sources.json_config import read_config
from diffood.export.sources.weights import find_state, fit_weights, hash_files
from diffood.runtime.records import one_line

WEIGHTS = "diffusion_pytorch_model.safetensors"
# Names that diffusers gives to weights, the preferred first: in one file, in shards, of a variant such as fp16.
_STEM = "diffusion_pytorch_model"
_PATTERNS = tuple(
    f"{_STEM}{variant}.{ending}{index}"
    for ending in ("safetensors", "bin")
    for variant, index in (("", ""), ("", ".index.json"), (".*", ""), ("", ".index.*.json"))
)
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # attention before diffusers 0.16


@dataclass(frozen=True)
class DiffusersModel:
    """A model that diffusers saved.

    Attributes:
        model: The module, float32, for inference.
        config: Its configuration, complete: diffusers' defaults are filled in.
        folder: Where it lies.
        sha256: Hash of its files of weights.
        notes: What the user should know of the files, one line each.

    """

    model: Any
    config: Any
    folder: Path
    sha256: str
    notes: tuple[str, ...] = ()

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
    weights = find_weights_file(folder)
    if weights is None:
        raise ExportError(
            f"{folder} holds no {WEIGHTS}, nor shards or a variant of it. Save the model again with diffusers: "
            f"{kind.__name__}.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)."
        )
    model = _build(folder, kind, "meta")
    checkpoint = open_checkpoint(weights).renamed(_rename)
    computed = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
    found = find_state(model, checkpoint, str(folder / "config.json"), ignored=sorted(computed))  # old files have them
    fit_weights(model, found, f"{folder.name}/{weights.name}")
    if computed:
        _take_buffers(model, _build(folder, kind, "cpu"), computed)
    notes = found.notes if weights.name in _PATTERNS else (f"{folder.name}: taken from {weights.name}", *found.notes)
    sha256 = hash_files(checkpoint.files)
    return DiffusersModel(model.eval().requires_grad_(False), model.config, folder, sha256, notes)


def find_weights_file(folder: Path) -> Path | None:
    """The file of weights in a folder of diffusers, or the index of its shards."""
    return next((path for pattern in _PATTERNS for path in sorted(folder.glob(pattern)) if _is_whole(path)), None)


def _is_whole(path: Path) -> bool:
    """Whether a file is not one of several shards."""
    return path.is_file() and not re.search(r"-\d+-of-\d+", path.name)


def _build(folder: Path, kind: Any, device: str) -> Any:
    config = read_config(folder / "config.json")
    try:
        with torch.device(device):
            return kind.from_config(config)
    except Exception as error:  # impossible configs fail in many ways
        reason = one_line(error)[:300] or type(error).__name__
        raise ExportError(f"diffusers cannot build {folder / 'config.json'}: {reason}") from None


def _rename(name: str) -> str:
    """Today's name of a tensor of diffusers before 0.16, whose attention had other names."""
    old = rf"(attentions\.\d+)\.({'|'.join(_RENAMED)})\.(weight|bias)$"
    return re.sub(old, lambda match: f"{match[1]}.{_RENAMED[match[2]]}.{match[3]}", name)


def _take_buffers(model: Any, other: Any, names: set[str]) -> None:
    """Give a model the buffers that another of the same configuration computed."""
    for name in names:
        place, _, buffer = name.rpartition(".")
        model.get_submodule(place).register_buffer(buffer, other.get_buffer(name), persistent=False)
