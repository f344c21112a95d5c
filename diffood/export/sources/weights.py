"""Hashes weights, and fits those of a file into a module."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import (
    FoundWeights,
    ModelCheckpoint,
    WantedTensors,
    describe_misfit,
    find_weights,
    shorten_name,
)
from diffood.runtime.records import one_line

_CHUNK = 2**20


def hash_files(paths: Iterable[Path]) -> str:
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


def find_state(
    model: nn.Module,
    checkpoint: ModelCheckpoint,
    origin: str,
    *,
    rename: Callable[[str], str] = str,
    optional: Sequence[str] = (),
    ignored: Sequence[str] = (),
) -> FoundWeights:
    """A module's weights in a checkpoint.

    Args:
        model: Says what is wanted; its values are not read.
        checkpoint: The file.
        origin: Name of the module, for messages.
        rename: From a name in the module to the one in the file.
        optional: Names that the file may lack.
        ignored: Names, or beginnings of names, that the file may have.

    Raises:
        ExportError: No weights in the file fit; the message says what is missing or does not belong.

    """
    state = model.state_dict()
    shapes = {rename(name): None if is_lazy(value) else tuple(value.shape) for name, value in state.items()}
    buffers = {rename(name) for name, _ in model.named_buffers()} & shapes.keys()
    return find_weights(checkpoint, WantedTensors(shapes, buffers, optional, tuple(ignored)), origin)


def load_state(model: nn.Module, found: FoundWeights, file: str, origin: str) -> None:
    """Load a file's tensors into a module that has memory of its own, such as a classifier.

    Raises ExportError naming what does not fit, or is not finite.
    """
    state = model.state_dict()
    wanted = {name: None if is_lazy(state[name]) else state[name].shape for name in found.tensors}
    misfit = describe_misfit(wanted, {name: value.shape for name, value in found.tensors.items()})
    if misfit:
        raise ExportError(f"{file} does not fit {origin}: {misfit}. Give weights of this network.")
    for name, value in found.tensors.items():
        if not is_lazy(state[name]) and state[name].is_floating_point() and not value.is_floating_point():
            raise ExportError(
                f"{shorten_name(name)} in {file} is {value.dtype}, where {origin} has floats; give the weights from "
                "before they were quantised."
            )
    require_finite(found.tensors.items(), f"in {file}", parameters=set(dict(model.named_parameters())))
    try:
        model.load_state_dict(found.tensors, strict=False)  # a counter of batches may be missing, as in old files
    except RuntimeError as error:
        reason = one_line(error)[-300:]
        raise ExportError(f"{file} does not fit {origin}: {reason} Give weights of this network.") from None


def require_finite(tensors: Iterable[tuple[str, torch.Tensor]], where: str, parameters: set[str]) -> None:
    """Raise ExportError for a tensor with NaN or infinity; -Infinity is possible in a buffer, as a mask."""
    for name, value in tensors:
        if not value.is_floating_point() or bool(torch.isfinite(value).all()):
            continue
        if name not in parameters and not bool((value.isnan() | value.isposinf()).any()):
            continue
        what = "NaN" if bool(value.isnan().any()) else "Infinity"
        raise ExportError(
            f"{shorten_name(name)} {where} holds {what}; the training failed or the file is damaged: give weights of "
            "an earlier epoch."
        )


def fit_weights(model: nn.Module, found: FoundWeights, file: str, rename: Callable[[str], str] = str) -> None:
    """Give a module that was built on the meta device the weights of a file, as float32.

    Shapes may differ in trailing ones, since 1x1 convolutions and matrices are the same.

    Args:
        model: Every parameter and buffer of its state dict must have been found.
        found: Its weights, by the names that `rename` gives.
        file: Its name, for messages.
        rename: From a name in the module to the one in the file.

    Raises:
        ExportError: Something does not fit, or is not finite; the message names it.

    """
    wanted = {rename(name): (name, value.shape) for name, value in model.state_dict().items()}
    shapes = {theirs: _without_trailing_ones(shape) for theirs, (_, shape) in wanted.items()}
    misfit = describe_misfit(
        shapes, {name: _without_trailing_ones(value.shape) for name, value in found.tensors.items()}
    )
    if misfit:
        raise ExportError(
            f"{file} does not fit its configuration: {misfit}. Give the configuration it was trained with."
        )
    for theirs, value in found.tensors.items():
        if not value.is_floating_point():
            raise ExportError(f"{shorten_name(theirs)} in {file} is {value.dtype}; weights of a UNet are floats.")
    require_finite(found.tensors.items(), f"in {file}", set(found.tensors))
    state = {
        ours: found.tensors[theirs].detach().float().reshape(shape).contiguous()
        for theirs, (ours, shape) in wanted.items()
    }
    model.load_state_dict(state, assign=True)


def _without_trailing_ones(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = list(shape)
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)
