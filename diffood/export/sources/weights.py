"""Hashes and opens weight files: safetensors, never a pickle."""

import hashlib
from pathlib import Path

import torch

from diffood.errors import ExportError

_CHUNK = 2**20


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; ExportError where it is missing, a pickle, or damaged."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise ExportError(f"No weights at {path}; give a .safetensors file.")
    if path.suffix != ".safetensors":
        raise ExportError(
            f"{path.name} is not a .safetensors file, and pickles are not opened because they can run code. "
            "Convert it where it was trained: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        )
    try:
        return dict(load_file(path))
    except Exception as error:
        raise ExportError(f"{path} is not readable as safetensors ({error}); copy it again.") from None
