"""Opens files of weights that torch or safetensors wrote: tensors by name. Runs no code of theirs."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffood.errors import ExportError

MAX_PICKLE_BYTES = 64 * 2**20  # names and shapes of a checkpoint take some hundred kilobytes; tensors are other entries
# Keys under which training scripts keep a model; averaged weights first.
WRAPPERS = ("ema", "state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
_SHOWN = 100  # letters of a name in a message

Weights = dict[str, torch.Tensor]


def load_checkpoint(path: Path) -> Weights:
    """Tensors by name of a .safetensors file, or of what torch.save wrote (a state dict, or a dict or list around one).

    torch files are opened with weights_only and, since torch 1.6, mapped and not read into memory. Raises ExportError
    where the file is missing, damaged, compressed, or needs code to be opened.
    """
    if not path.is_file():
        raise ExportError(f"No weights at {path}; give a .safetensors file, or one that torch.save wrote.")
    loaded: object = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    weights = _find_weights(loaded, path)
    limit = path.stat().st_size
    for name, value in weights.items():
        _require_plain(name, value, path, limit)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _load_safetensors(path: Path) -> Weights:
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except Exception as error:
        raise ExportError(f"{path} is not readable as safetensors ({error}); copy it again.") from None


def _load_torch(path: Path) -> object:
    archive = zipfile.is_zipfile(path)  # as since torch 1.6; older files can only be read, not mapped
    if archive:
        _require_stored_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise ExportError(
            f"{path.name} holds more than tensors, and opening it could run code ({_reason(error)}). If you trust the "
            'file, convert it once: python -c "import torch; from safetensors.torch import save_file; save_file({k: '
            f"v.contiguous() for k, v in torch.load('{path.name}', 'cpu', weights_only=False).items()}}, "
            f"'{path.stem}.safetensors')\", with what holds the state dict in place of .items() where it lies deeper."
        ) from None
    except Exception as error:
        raise ExportError(f"{path.name} is not readable as a checkpoint ({_reason(error)}); copy it again.") from None


def _require_stored_zip(path: Path) -> None:
    """Refuse a zip with compressed entries: torch.save never compresses, and a zip bomb must not be unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ExportError(f"{path.name} is a damaged archive ({_reason(error)}); copy it again.") from None
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ExportError(
            f"{path.name} is compressed, which torch.save never does; load it where you trust it and save it again."
        )
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ExportError(f"{path.name} claims more bytes than it has; copy it again from its source.")
    if any(entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES for entry in entries):
        raise ExportError(f"The names in {path.name} take more than {MAX_PICKLE_BYTES} bytes; it is not a checkpoint.")


def _find_weights(loaded: object, path: Path) -> Weights:
    """The state dict in what was loaded: itself, a wrapper's value, or the first of a list (DiffOOD's train.ckpt)."""
    if isinstance(loaded, list | tuple) and loaded and isinstance(loaded[0], Mapping):
        loaded = loaded[0]
    if isinstance(loaded, Mapping):
        inner = [loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
        loaded = inner[0] if inner else loaded
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(name, str) for name in loaded):
        kind = f"a {type(loaded).__name__}" if not isinstance(loaded, Mapping) else "a dict without tensors by name"
        raise ExportError(
            f"{path.name} holds {kind}; save the model's state dict: torch.save(model.state_dict(), FILE)."
        )
    return dict(loaded)


def _require_plain(name: str, value: Any, path: Path, limit: int) -> None:
    """Refuse a value that is not a dense tensor, or claims more bytes than the file has."""
    if type(value) not in (torch.Tensor, nn.Parameter):
        raise ExportError(
            f"{shorten_name(name)} in {path.name} is a {type(value).__name__}, not a tensor; save the state dict alone."
        )
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_complex() or value.is_quantized:
        raise ExportError(
            f"{shorten_name(name)} in {path.name} is {value.dtype}, {value.layout}; weights are dense real tensors."
        )
    if value.numel() * value.element_size() > limit:
        raise ExportError(
            f"{shorten_name(name)} in {path.name} claims the shape {list(value.shape)}, more than the file holds."
        )


def shorten_name(name: str) -> str:
    """A tensor's name for a message: quoted, without control characters, its first 100 letters."""
    return repr(name[:_SHOWN])


def _reason(error: Exception) -> str:
    """The line of torch's explanation that says what was found."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "GLOBAL" in line or "Unsupported" in line or "WeightsUnpickler error" in line]
    text = (telling or lines or [type(error).__name__])[0]
    return text.encode("unicode_escape").decode()[:200]
