"""Hashes and opens weight files: safetensors, and what torch.save wrote of tensors alone. No pickle is executed."""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffood.errors import ExportError

_CHUNK = 2**20
PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
_ZIP_OVERHEAD = 2**20
_CONVERT = (
    "Convert it where it was trained: safetensors.torch.save_model(model, 'weights.safetensors'), or "
    "torch.save(model.state_dict(), 'weights.pt')."
)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hash_files([path])


def hash_files(paths: list[Path]) -> str:
    """SHA-256 of the bytes of files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def hash_tensors(model: nn.Module) -> str:
    """SHA-256 of a module's tensors and their names, for weights that came from no file of the user's."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fill(model: nn.Module, path: Path, origin: str) -> str:
    """Load a file's weights into a module; returns the file's hash. ExportError where they do not fit."""
    load_state(model, load_weights(path), path, origin)
    return hash_file(path)


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path, origin: str) -> None:
    """Load tensors that were read from `path` into a module; ExportError says the first that does not fit."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ExportError(f"{path.name} does not fit {origin}: {_misfit(model, state, error)}") from None


def _misfit(model: nn.Module, state: Mapping[str, torch.Tensor], error: RuntimeError) -> str:
    """What does not fit, an example of each kind; torch's own message may have a line for each of a thousand names."""
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    foreign = [name for name in state if name not in wanted]
    others = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    words = [f"it has no {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else "")] if missing else []
    if foreign:
        words.append(f"{foreign[0]}" + (f" and {len(foreign) - 1} more" if foreign[1:] else "") + " are unknown there")
    if others:
        have, want = (list(side[others[0]].shape) for side in (state, wanted))
        words.append(f"size mismatch for {others[0]}: {have} where {want} belongs")
    return "; ".join(words) + "." if words else str(error).splitlines()[-1].strip()


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a weights file, by name; ExportError where it is missing, damaged, or a pickle that needs more.

    .safetensors; .pt, .pth, .bin, .ckpt as torch.save writes them, opened by weights_only, as a state dict or with one
    under "state_dict" or "model". Prefixes of DataParallel and torch.compile are taken off.
    """
    if not path.is_file():
        raise ExportError(f"No weights at {path}; give a .safetensors file, or a .pt or .pth file of tensors.")
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    elif path.suffix in PICKLES:
        tensors = _state_dict(_read_pickle(path), path)
    else:
        raise ExportError(f"{path.name} is no .safetensors file, and none of {', '.join(PICKLES)}. {_CONVERT}")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except Exception as error:
        raise ExportError(f"{path} is not readable as safetensors ({error}); copy it again.") from None


def _read_pickle(path: Path) -> Any:
    """Whatever of tensors, numbers and plain containers lies in a file of torch.save."""
    _require_unpacked(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch raise a dozen kinds for damaged bytes
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found:
            raise ExportError(
                f"{path.name} holds {found[1]}, which is more than tensors, and is not opened: a pickle can run code. "
                f"{_CONVERT}"
            ) from None
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise ExportError(f"{path.name} is not readable as torch.save writes it ({reason}); copy it again.") from None


def _require_unpacked(path: Path) -> None:
    """Refuse an archive that expands: torch.save packs nothing, and a packed one may fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # of damaged bytes
        raise ExportError(f"{path.name} is a damaged archive ({error}); copy it again.") from None
    if expanded > path.stat().st_size + _ZIP_OVERHEAD:
        raise ExportError(f"{path.name} expands to {expanded} bytes, and torch.save packs nothing. {_CONVERT}")


def _state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise ExportError(f"{path.name} holds a {type(content).__name__}, not a state dict. {_CONVERT}")
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        names = ", ".join(sorted(map(str, content))[:5])
        raise ExportError(f"{path.name} holds no tensors under the names of a state dict, but {names}. {_CONVERT}")
    return tensors
