"""Picks a network's weights out of a checkpoint: the state dict and the prefix of names that fit it, averages first.

network    conv.weight
file       state_dict: model._orig_mod.module.conv.weight, criterion.weight     ema: model.conv.weight
taken      ema, under model.; _orig_mod and module are no parts of names
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.state_dicts import (
    NamedTensors,
    SavedWeights,
    StateDict,
    find_state_dicts,
    speaks_of_average,
    words_of,
)
from diffood.export.sources.weights_file import read_weights_file

# What DataParallel, torch.compile, FSDP, activation checkpointing, Fabric and Opacus put into names, at any place.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_module"}
# Last parts of names that count something in training; inference never reads them.
_COUNTERS = {"num_batches_tracked", "n_averaged", "total_ops", "total_params", "initted", "step", "steps"}
# Words in first parts of names that belong to the training and not to the network.
_TRAINING = {"criterion", "criteria", "loss", "losses", "metric", "metrics", "acc", "accuracy", "optimizer"}
# Keys and prefixes under which scripts keep the network, the usual ones first.
_USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "model_state", "module")
_SHOWN = 100  # letters of a name in a message


@dataclass(frozen=True)
class ModelCheckpoint:
    """An opened file of weights.

    Attributes:
        name: Of the file, for messages.
        files: What was read: the file, or the shards that it names.
        saved: The state dicts in it.

    """

    name: str
    files: tuple[Path, ...]
    saved: SavedWeights

    def renamed(self, rename: Callable[[str], str]) -> "ModelCheckpoint":
        """The same with other names of tensors."""
        named = tuple(
            replace(state, tensors={rename(name): value for name, value in state.tensors.items()})
            for state in self.saved.named
        )
        return replace(self, saved=replace(self.saved, named=named))


@dataclass(frozen=True)
class WantedTensors:
    """The tensors of a network.

    Attributes:
        shapes: By name; None where a lazy layer takes the file's.
        buffers: Names of those that are no parameters: averages of parameters lack them.
        optional: Names that the file may lack.
        ignored: Names, or beginnings of names, that the file may have.

    """

    shapes: Mapping[str, tuple[int, ...] | None]
    buffers: Collection[str] = ()
    optional: Collection[str] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundWeights:
    """A network's weights.

    Attributes:
        tensors: By the names of the network.
        notes: What the user should know of the choice, one line each.

    """

    tensors: NamedTensors
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Fit:
    """A state dict that fits the network under a prefix.

    Attributes:
        state: Where it lies.
        prefix: What its names begin with.
        names: From the network's names to the file's.
        averaged: Whether these are averages over training.
        alike: NamedTensors that have the network's shape too.

    """

    state: StateDict
    prefix: str
    names: dict[str, str]
    averaged: bool
    alike: int

    @property
    def where(self) -> str:
        """The keys and the prefix, for the user."""
        parts = (*self.state.place, self.prefix.rstrip("."))
        return shorten_name(".".join(part for part in parts if part)) if any(parts) else "the plain ones"

    @property
    def rank(self) -> tuple[int, int, int]:
        """The least is the best: shapes that fit, the usual keys, short prefixes."""
        keys = (*self.state.place, *self.prefix.split(".")[:1])
        usual = min((_USUAL.index(key) for key in keys if key in _USUAL), default=len(_USUAL))
        return -self.alike, usual if any(keys) else -1, self.prefix.count(".")

    @property
    def tensors(self) -> NamedTensors:
        """By the names of the network."""
        return {name: self.state.tensors[theirs] for name, theirs in self.names.items()}


def open_checkpoint(path: Path) -> ModelCheckpoint:
    """Open a file of weights, or the index of several. Raises ExportError where it cannot be opened safely."""
    loaded, files = read_weights_file(path)
    saved = find_state_dicts(loaded)
    if not saved.named:
        kind = f"a {type(loaded).__name__}" if not isinstance(loaded, dict) else "a dict without tensors by name"
        raise ExportError(
            f"{path.name} holds {kind}; save the model's state dict: torch.save(model.state_dict(), FILE)."
        )
    return ModelCheckpoint(path.name, tuple(files), saved)


def find_weights(checkpoint: ModelCheckpoint, wanted: WantedTensors, origin: str) -> FoundWeights:
    """The weights of a network in a checkpoint, the averaged ones where there are some.

    Shapes are not compared: a classifier may be built anew for the file's number of classes.

    Args:
        checkpoint: The file.
        wanted: What the network has.
        origin: Name of the network, for messages.

    Raises:
        ExportError: No state dict fits, several do, or a tensor is of a kind that no network has.

    """
    fits = [fit for state in checkpoint.saved.named for fit in (*_fits(state, wanted), *_dotless_fits(state, wanted))]
    for fit in fits:
        for name in fit.names.values():
            _require_plain(name, fit.state.tensors[name], checkpoint)
    plain = sorted((fit for fit in fits if not fit.averaged), key=lambda fit: fit.rank)
    averages = [fit for fit in fits if fit.averaged and (plain or _complete(fit, wanted))]
    if averages:
        return _take_average(checkpoint, sorted(averages, key=lambda fit: fit.rank), plain[:1])
    if not plain:
        raise ExportError(f"{checkpoint.name} does not fit {origin}: {_explain_misfit(checkpoint, wanted)}")
    return _take_plain(checkpoint, wanted, plain)


def _take_average(checkpoint: ModelCheckpoint, averages: list[_Fit], plain: list[_Fit]) -> FoundWeights:
    """The best averages; what they lack, such as a batch norm's statistics, is the plain network's."""
    best = averages[0]
    tensors = best.tensors
    notes = [f"{checkpoint.name}: its averaged weights are taken, {best.where}"]
    if plain:
        added = {name: value for name, value in plain[0].tensors.items() if name not in tensors}
        notes[0] += f", not {plain[0].where}"
        if any(name.rpartition(".")[2] not in _COUNTERS for name in added):
            notes.append(f"{checkpoint.name}: {_count(sorted(added))}, which the averages lack, from {plain[0].where}")
        tensors |= added
    if averages[1:]:
        notes.append(f"{checkpoint.name}: there are other averages, {', '.join(fit.where for fit in averages[1:4])}")
    return FoundWeights(tensors, tuple(notes))


def _take_plain(checkpoint: ModelCheckpoint, wanted: WantedTensors, plain: list[_Fit]) -> FoundWeights:
    best, others = plain[0], [fit for fit in plain[1:] if not _same(fit, plain[0])]
    if others and others[0].rank[:2] == best.rank[:2]:
        raise ExportError(
            f"{checkpoint.name} holds {len(others) + 1} networks that fit, such as {best.where} and {others[0].where}: "
            "save the one you mean alone, torch.save(STATE_DICT, FILE)."
        )
    notes = [f"{checkpoint.name}: {best.where} is taken; {others[0].where} fits too"] if others else []
    taken = {name for fit in plain if fit.state is best.state for name in fit.names.values()}
    left = sorted(name for name in best.state.tensors.keys() - taken if name.rpartition(".")[2] not in _COUNTERS)
    if left:
        notes.append(f"{checkpoint.name}: {_count(left)} left out: the network does not have them")
    for average in checkpoint.saved.unnamed:
        # In the order of the network's parameters, which is the file's order of their names.
        order = {theirs: ours for ours, theirs in best.names.items() if ours not in wanted.buffers}
        names = [order[theirs] for theirs in best.state.tensors if theirs in order]
        where = shorten_name(".".join(average.place))
        if [best.tensors[name].shape for name in names] == [value.shape for value in average.tensors]:
            for value in average.tensors:
                _require_plain(".".join(average.place), value, checkpoint)
            notes.append(f"{checkpoint.name}: its averaged weights are taken, {where}, not {best.where}")
            return FoundWeights(best.tensors | dict(zip(names, average.tensors, strict=True)), tuple(notes))
        notes.append(f"{checkpoint.name}: its averages {where} are of other shapes; {best.where} is taken")
    return FoundWeights(best.tensors, tuple(notes))


def _same(fit: _Fit, other: _Fit) -> bool:
    """Whether two fits have the same values: a network that is registered twice."""
    ours, theirs = fit.tensors, other.tensors
    return all(torch.equal(value, theirs[name]) for name, value in ours.items() if name in theirs)


def _fits(state: StateDict, wanted: WantedTensors) -> Iterator[_Fit]:
    """The prefixes under which all tensors of the network lie, and none that it does not have."""
    for ours, theirs, cut in _plain_names(state, wanted):
        found = False
        for prefix, _ in _prefixes(ours, theirs).most_common():
            if cut and prefix.endswith(cut):
                continue  # the name as it was
            names = {name: theirs[prefix + plain] for plain, name in ours.items() if prefix + plain in theirs}
            averaged = state.averaged or speaks_of_average(prefix)
            lacking = {name for name in wanted.shapes.keys() - names.keys() if not _may_lack(name, wanted)}
            if lacking - (set(wanted.buffers) if averaged else set()) or _surplus(prefix, ours, theirs, wanted):
                continue
            found = True
            alike = sum(wanted.shapes[name] == tuple(state.tensors[own].shape) for name, own in names.items())
            yield _Fit(state, prefix, names, averaged, alike)
        if found:
            return


def _dotless_fits(state: StateDict, wanted: WantedTensors) -> Iterator[_Fit]:
    """Averages of parameters under names without dots, model_ema.diffusion_modelinput_blocks00weight, as of LitEma."""
    ours = {name.replace(".", ""): name for name in wanted.shapes if name not in wanted.buffers}
    groups: dict[str, dict[str, str]] = {}
    for name in state.tensors:
        first, _, rest = name.partition(".")
        if "." not in rest and speaks_of_average(first):
            groups.setdefault(first, {})[rest] = name
    longest = max(ours, key=len, default="")
    for first, theirs in groups.items():
        for before in {name.removesuffix(longest) for name in theirs if name.endswith(longest)}:
            names = {name: theirs[before + flat] for flat, name in ours.items() if before + flat in theirs}
            if names and all(name in names or _may_lack(name, wanted) for name in ours.values()):
                alike = sum(wanted.shapes[name] == tuple(state.tensors[own].shape) for name, own in names.items())
                yield _Fit(state, f"{first}.", names, True, alike)


def _plain_names(state: StateDict, wanted: WantedTensors) -> Iterator[tuple[dict[str, str], dict[str, str], str]]:
    """Names of the network and of the file by what remains of them without wrappers, and what was cut off the former.

    A network may lie in a module that the file was saved without, so that all of its own names begin alike.
    """
    ours = {_without_wrappers(name): name for name in wanted.shapes}
    theirs = {_without_wrappers(name): name for name in reversed(state.tensors)}
    if len(ours) < len(wanted.shapes):
        ours, theirs = {name: name for name in wanted.shapes}, {name: name for name in state.tensors}
    cut = ""
    while ours:
        yield ours, theirs, cut
        first = {name.partition(".")[0] for name in ours}
        if len(first) > 1 or any("." not in name for name in ours):
            return
        cut += f"{first.pop()}."
        ours = {plain.partition(".")[2]: name for plain, name in ours.items()}


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefixes(ours: Collection[str], theirs: Collection[str]) -> Counter[str]:
    """What names of the file begin with where the rest is a name of the network, and how often."""
    votes: Counter[str] = Counter()
    for name in theirs:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in ours:
                votes["".join(f"{part}." for part in parts[:start])] += 1
    return votes


def _may_lack(name: str, wanted: WantedTensors) -> bool:
    return name in wanted.optional or (name in wanted.buffers and name.rpartition(".")[2] in _COUNTERS)


def _surplus(prefix: str, ours: Collection[str], theirs: Collection[str], wanted: WantedTensors) -> list[str]:
    """What lies under the prefix and is no part of the network, nor of its training."""
    inside = [name.removeprefix(prefix) for name in theirs if name.startswith(prefix)]
    return [name for name in inside if name not in ours and not _of_training(name, wanted, top=not prefix)]


def _of_training(name: str, wanted: WantedTensors, *, top: bool) -> bool:
    first, last = name.partition(".")[0], name.rpartition(".")[2]
    return (
        last in _COUNTERS
        or name.startswith(wanted.ignored or ("\0",))
        or (top and (speaks_of_average(first) or not _TRAINING.isdisjoint(words_of(first))))
    )


def _complete(fit: _Fit, wanted: WantedTensors) -> bool:
    return all(_may_lack(name, wanted) for name in wanted.shapes.keys() - fit.names.keys())


def _explain_misfit(checkpoint: ModelCheckpoint, wanted: WantedTensors) -> str:
    """What keeps the state dict that is nearest to the network from fitting."""
    best, most = (checkpoint.saved.named[0], "", {name: name for name in wanted.shapes}), -1
    for state in checkpoint.saved.named:
        for ours, theirs, _ in _plain_names(state, wanted):
            for prefix, votes in [*_prefixes(ours, theirs).most_common(1), ("", 0)]:
                if votes > most:
                    best, most = (state, prefix, ours), votes
    state, prefix, ours = best
    found = {
        name.removeprefix(prefix): tuple(state.tensors[theirs].shape)
        for name, theirs in ((_without_wrappers(name), name) for name in state.tensors)
        if name.startswith(prefix)
    }
    found = {name: shape for name, shape in found.items() if not _of_training(name, wanted, top=not prefix)}
    names = {plain: None for plain, name in ours.items() if not _may_lack(name, wanted)}
    return describe_misfit(names, found) or "it lacks tensors that averages do not have"


def describe_misfit(wanted: Mapping[str, Sequence[int] | None], found: Mapping[str, Sequence[int]]) -> str | None:
    """What a file lacks, has too much, or has in another shape: an example of each; None where all fits.

    Args:
        wanted: Shapes by name as the network has them, None for any.
        found: Shapes by name as the file has them.

    """
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    said = [f"{_count(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    if unknown:
        said.append(f"{_count(unknown)} {'does' if len(unknown) == 1 else 'do'} not belong")
    for name, shape in wanted.items():
        if shape is not None and name in found and list(shape) != list(found[name]):
            said.append(f"{shorten_name(name)} has the shape {list(found[name])} where {list(shape)} belongs")
            break
    return "; ".join(said) or None


def _require_plain(name: str, value: torch.Tensor, checkpoint: ModelCheckpoint) -> None:
    """Refuse a value that is not a dense tensor, or claims more bytes than the file has."""
    where = f"{shorten_name(name)} in {checkpoint.name}"
    if type(value) not in (torch.Tensor, nn.Parameter):
        raise ExportError(f"{where} is a {type(value).__name__}, not a plain tensor; save the full state dict.")
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_complex() or value.is_quantized:
        raise ExportError(f"{where} is {value.dtype}, {value.layout}; weights are dense real tensors.")
    if value.numel() * value.element_size() > sum(file.stat().st_size for file in checkpoint.files):
        raise ExportError(f"{where} claims the shape {list(value.shape)}, more than the file holds.")


def shorten_name(name: str) -> str:
    """A tensor's name for a message: quoted, without control characters, its first 100 letters."""
    return repr(name[:_SHOWN])


def _count(names: list[str]) -> str:
    return shorten_name(names[0]) + (f" and {len(names) - 1} more" if names[1:] else "")
