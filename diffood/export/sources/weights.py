"""Hashes weights, and fits those of a file into a module."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import Weights, load_checkpoint

_CHUNK = 2**20
_SHOWN = 100  # letters of a name in a message


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
    load_state(model, load_checkpoint(path), path, origin)
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


def fit_weights(model: nn.Module, weights: Weights, file: str, rename: Callable[[str], str] = str) -> None:
    """Give `model`, built on the meta device, the weights of a file, as float32; every name and shape must fit.

    rename: from a name in the model to the one in the file. Shapes may differ in trailing ones, for 1x1 convolutions
    and matrices are the same. Raises ExportError naming the first tensor that does not fit, or is not finite.
    """
    wanted = {rename(name): (name, value.shape) for name, value in model.state_dict().items()}
    missing, unknown = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or unknown:
        found = [f"{_some(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
        found += [f"{_some(unknown)} {'does' if len(unknown) == 1 else 'do'} not belong"] if unknown else []
        raise ExportError(
            f"{file} does not hold the network that its configuration describes: {' and '.join(found)}. "
            "Give the configuration it was trained with."
        )
    state = {}
    for theirs, (ours, shape) in wanted.items():
        value = weights[theirs]
        if _squeezed(value.shape) != _squeezed(shape):
            raise ExportError(
                f"{theirs!r} in {file} has the shape {list(value.shape)}, its configuration makes it {list(shape)}. "
                "Give the configuration it was trained with."
            )
        if not value.is_floating_point():
            raise ExportError(f"{theirs[:_SHOWN]!r} in {file} is {value.dtype}; weights of a UNet are floats.")
        if not bool(torch.isfinite(value).all()):
            raise ExportError(
                f"{theirs!r} in {file} holds NaN or infinity; the training failed or the file is damaged."
            )
        state[ours] = value.detach().float().reshape(shape).contiguous()
    model.load_state_dict(state, assign=True)
    left = [name for name, value in model.named_buffers() if value.is_meta]
    if left:
        raise ExportError(f"The network keeps {left[0]!r} outside its checkpoint, which is not supported.")


def _squeezed(shape: torch.Size) -> tuple[int, ...]:
    sizes = list(shape)
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0][:_SHOWN]!r}{more}"
