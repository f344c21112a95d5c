"""Hashes weights, and fits those of a file into a module."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import Weights, shorten_name

_CHUNK = 2**20


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


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], file: str, origin: str) -> None:
    """Load a file's tensors into a module that has memory of its own, such as a classifier.

    Raises ExportError naming what does not fit.
    """
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    misfit = describe_misfit(wanted, {name: value.shape for name, value in state.items()})
    if misfit:
        raise ExportError(f"{file} does not fit {origin}: {misfit}. Give weights of this network.")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-300:]
        raise ExportError(f"{file} does not fit {origin}: {reason} Give weights of this network.") from None


def fit_weights(model: nn.Module, weights: Weights, file: str, rename: Callable[[str], str] = str) -> None:
    """Give a module that was built on the meta device the weights of a file, as float32.

    Shapes may differ in trailing ones, since 1x1 convolutions and matrices are the same.

    Args:
        model: Every parameter and buffer of its state dict must be in the file, and nothing else.
        weights: The file's tensors.
        file: Its name, for messages.
        rename: From a name in the module to the one in the file.

    Raises:
        ExportError: Something does not fit, or is not finite; the message names it.

    """
    wanted = {rename(name): (name, value.shape) for name, value in model.state_dict().items()}
    shapes = {theirs: _without_trailing_ones(shape) for theirs, (_, shape) in wanted.items()}
    misfit = describe_misfit(shapes, {name: _without_trailing_ones(value.shape) for name, value in weights.items()})
    if misfit:
        raise ExportError(
            f"{file} does not fit its configuration: {misfit}. Give the configuration it was trained with."
        )
    state = {}
    for theirs, (ours, shape) in wanted.items():
        value = weights[theirs]
        if not value.is_floating_point():
            raise ExportError(f"{shorten_name(theirs)} in {file} is {value.dtype}; weights of a UNet are floats.")
        if not bool(torch.isfinite(value).all()):
            raise ExportError(
                f"{shorten_name(theirs)} in {file} holds NaN or infinity; the training failed or the file is damaged."
            )
        state[ours] = value.detach().float().reshape(shape).contiguous()
    model.load_state_dict(state, assign=True)


def describe_misfit(wanted: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> str | None:
    """What a file lacks, has too much, or has in another shape: an example of each; None where all fits.

    Args:
        wanted: Shapes by name as the network has them.
        found: Shapes by name as the file has them.

    """
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    others = [name for name in wanted if name in found and list(wanted[name]) != list(found[name])]
    said = [f"{_count(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    if unknown:
        said.append(f"{_count(unknown)} {'does' if len(unknown) == 1 else 'do'} not belong")
    if others:
        have, want = (list(shapes[others[0]]) for shapes in (found, wanted))
        said.append(f"{shorten_name(others[0])} has the shape {have} where {want} belongs")
    return "; ".join(said) or None


def _without_trailing_ones(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = list(shape)
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _count(names: list[str]) -> str:
    return shorten_name(names[0]) + (f" and {len(names) - 1} more" if names[1:] else "")
