"""What networks of a library, asked for by name, have in common: near names, classes read off the weights, refusals."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

import torch
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import FoundWeights, ModelCheckpoint
from diffood.export.sources.weights import find_state, load_state
from diffood.runtime.records import one_line


def refuse_name(name: str, kind: str, known: Iterable[str]) -> NoReturn:
    """ExportError for a name the library does not know, with those near to it."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 4)
    meant = f"Did you mean {', '.join(near)}?" if near else f"It has {len(names)}, such as {', '.join(names[:3])}."
    raise ExportError(f"{kind} has no classifier {name!r}. {meant}")


def refuse_without_weights(spec: str) -> NoReturn:
    """ExportError where neither a file nor a download is allowed."""
    raise ExportError(
        f"{spec} needs its weights: give --classifier-weights FILE, or --download to fetch the library's own."
    )


def refuse_download(spec: str, error: Exception) -> NoReturn:
    """ExportError where the library could not fetch its weights."""
    reason = f"{type(error).__name__}: {one_line(error)[:200]}"
    raise ExportError(
        f"The weights of {spec} cannot be fetched ({reason}): check the network, or fetch the file elsewhere and give "
        "it by --classifier-weights."
    )


def build_and_fill(
    build: Callable[..., nn.Module],
    checkpoint: ModelCheckpoint,
    origin: str,
    *,
    classes: int,
    channels: int | None = None,
    ignored: Sequence[str] = (),
) -> tuple[nn.Module, FoundWeights]:
    """Build a network with as many classes as a file's weights have, and fill it.

    Args:
        build: Takes num_classes and, where `channels` is given, in_chans.
        checkpoint: The file.
        origin: Name of the network, for messages.
        classes: What `build` makes by itself.
        channels: What `build` makes by itself, where it can be asked for others.
        ignored: Beginnings of names that the file may have and the network has not.

    Returns:
        The network, and what it was filled with.

    Raises:
        ExportError: The file does not fit.

    """
    model = build()
    found = find_state(model, checkpoint, origin, ignored=ignored)
    state = found.tensors
    changed = {}
    heads = _other_sizes(model, state, 0, classes)
    if len(heads) == 1:
        changed["num_classes"] = heads.pop()
    stems = _other_sizes(model, state, 1, channels) if channels else set()
    if len(stems) == 1:
        changed["in_chans"] = stems.pop()
    if changed:
        model = build(**changed)
    load_state(model, found, checkpoint.name, origin)
    return model, found


def _other_sizes(model: nn.Module, state: Mapping[str, torch.Tensor], axis: int, size: int) -> set[int]:
    """What the file has along `axis` where the network has `size` there and the tensors differ in nothing else."""
    found = set()
    for name, tensor in model.state_dict().items():
        if name in state and tensor.ndim > axis and state[name].ndim == tensor.ndim:
            have, want = list(state[name].shape), list(tensor.shape)
            if want[axis] == size != have[axis] and have[:axis] + have[axis + 1 :] == want[:axis] + want[axis + 1 :]:
                found.add(have[axis])
    return found
