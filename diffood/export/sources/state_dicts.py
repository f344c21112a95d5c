"""Finds the state dicts in what a training script saved: by the keys they lie under, averaged ones marked.

{"epoch": 7, "model": {…}, "model_ema": {…}, "optimizer": {"state": {0: …}}}   two state dicts, one averaged
[{…}, {"state": …}, 7, 1234, {…}]                                               two; of a list the later is averaged
{"model": {…}, "ema": {"decay": 0.999, "shadow_params": […]}}                   one, and a list of averages
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

MAX_DEPTH = 8  # of dicts in dicts; scripts nest two or three
_AVERAGED = {"swa", "avg", "average", "averaged", "averaging", "polyak", "shadow"}
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

NamedTensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class StateDict:
    """NamedTensors that lie together in a file.

    Attributes:
        place: The keys they lie under.
        tensors: By name.
        averaged: Whether the keys say that they are averages over training.
    """

    place: tuple[str, ...]
    tensors: NamedTensors
    averaged: bool


@dataclass(frozen=True)
class AveragedList:
    """Averages of a network's parameters in its own order, without names, as of diffusers' EMAModel or torch_ema.

    Attributes:
        place: The keys they lie under.
        tensors: One per parameter.
    """

    place: tuple[str, ...]
    tensors: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class SavedWeights:
    """All weights in a file.

    Attributes:
        named: In the order of the file.
        unnamed: In the order of the file.
    """

    named: tuple[StateDict, ...]
    unnamed: tuple[AveragedList, ...] = ()


def words_of(key: str) -> list[str]:
    """The words of a key in small letters: netEMA is net, ema."""
    return [word.lower() for word in _WORDS.findall(key)]


def speaks_of_average(key: str) -> bool:
    """Whether a key says that what is under it was averaged, as model_ema, netEMA and swa_state_dict do."""
    return any(word in _AVERAGED or "ema" in (word[:3], word[-3:]) for word in words_of(key))


def find_state_dicts(loaded: object) -> SavedWeights:
    """All state dicts in what a file held; what else it held is passed over."""
    named: list[StateDict] = []
    unnamed: list[AveragedList] = []
    for place, value, averaged in _walk(loaded, (), False, set()):
        if isinstance(value, Mapping):
            tensors = {
                name: tensor
                for name, tensor in value.items()
                if isinstance(name, str) and isinstance(tensor, torch.Tensor)
            }
            if tensors:
                named.append(StateDict(place, tensors, averaged))
        elif averaged and value:
            averages = tuple(tensor for tensor in value if isinstance(tensor, torch.Tensor))
            if len(averages) == len(value):
                unnamed.append(AveragedList(place, averages))
    return SavedWeights(tuple(named), tuple(unnamed))


def _walk(
    value: object, place: tuple[str, ...], averaged: bool, seen: set[int]
) -> Iterator[tuple[tuple[str, ...], Mapping[object, object] | Sequence[object], bool]]:
    """Every dict and list under string keys, and whether the keys say that it is averaged; each once."""
    if id(value) in seen or len(place) > MAX_DEPTH or not isinstance(value, Mapping | list | tuple):
        return
    seen.add(id(value))
    yield place, value, averaged
    if isinstance(value, Mapping):
        swapped = _averages_are_in_state_dict(value)
        for key, inner in value.items():
            if isinstance(key, str):
                is_average = key == "state_dict" if swapped else averaged or speaks_of_average(key)
                yield from _walk(inner, (*place, key), is_average, seen)
    elif not place:
        # A list of its own: the model, the optimizer, …; ermongroup/ddim puts the averages last.
        for index, inner in enumerate(value):
            if isinstance(inner, Mapping):
                yield from _walk(inner, (str(index),), index > 0, seen)


def _averages_are_in_state_dict(value: Mapping[object, object]) -> bool:
    """Whether `state_dict` holds the averages and another key the plain weights.

    mmengine's EMAHook swaps the two when it saves, and Lightning's WeightAveraging callback puts the averages there.
    """
    meta = value.get("meta")
    mmengine = "message_hub" in value or (isinstance(meta, Mapping) and "mmengine_version" in meta)
    return ("ema_state_dict" in value and mmengine) or "current_model_state" in value
