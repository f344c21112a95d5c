"""Loads a classifier from a factory in a Python file and safetensors weights; finds its penultimate features."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from diffood.errors import DiffoodError, ExportError
from diffood.export.sources.weights import hash_file, load_weights


@dataclass(frozen=True)
class Preprocessing:
    """What a classifier does not do itself: size (H, W) it wants, mean and std of each channel in [0, 1]."""

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Classifier:
    """model(x [B, channels, H, W] in [0, 1], preprocessed) -> (logits [B, K], features [B, D])."""

    model: nn.Module
    channels: int
    preprocessing: Preprocessing
    classes: int
    features: int
    features_from: str
    origin: str
    sha256: str


class WithFeatures(nn.Module):
    """Adds the input of the last linear layer as features to a module that returns logits alone."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        self.model = model
        self._seen: list[torch.Tensor] = []
        model.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, features)."""
        self._seen.clear()
        logits = self.model(x)
        return logits, self._seen.pop().flatten(1)


def load_classifier(
    spec: str, weights: Path | None, height: int, width: int, preprocessing: Preprocessing
) -> Classifier:
    """Build FILE.py:FACTORY, load its weights, and try it on an image of height x width (or preprocessing.size).

    Raises ExportError saying what does not fit. The file is Python code of the user's own and is executed.
    """
    file, _, name = spec.rpartition(":")
    if not file.endswith(".py"):
        raise ExportError(f"Classifier {spec!r} is not of the form FILE.py:FACTORY, a function that builds the module.")
    model = _call_factory(Path(file), name)
    sha256 = "0" * 64
    if weights is not None:
        try:
            model.load_state_dict(load_weights(weights))
        except RuntimeError as error:
            raise ExportError(f"{weights.name} does not fit {spec}: {str(error).splitlines()[-1].strip()}") from None
        sha256 = hash_file(weights)
    model = model.eval().float().requires_grad_(False)
    size = preprocessing.size or (height, width)
    channels, output = _try_channels(model, size, spec)
    if isinstance(output, torch.Tensor):
        layer = _last_linear(model, channels, size)
        model, features_from = WithFeatures(model, layer), f"the input of its last linear layer, {layer}"
        output = model(torch.zeros(2, channels, *size))
    else:
        features_from = "its second output"
    if not (isinstance(output, tuple | list) and len(output) == 2 and all(o.ndim == 2 and len(o) == 2 for o in output)):
        raise ExportError(f"{spec} must return logits [B, K] or (logits [B, K], features [B, D]).")
    for values, what in ((preprocessing.mean, "mean"), (preprocessing.std, "std")):
        if values is not None and len(values) not in (1, channels):
            raise ExportError(f"--{what} has {len(values)} values; the classifier takes {channels} channels.")
    logits, features = output
    return Classifier(
        model,
        channels,
        preprocessing,
        logits.shape[1],
        features.shape[1],
        features_from,
        f"{Path(file).name}:{name}",
        sha256,
    )


def _call_factory(file: Path, name: str) -> nn.Module:
    if not file.is_file():
        raise ExportError(f"No classifier file {file}; give FILE.py:FACTORY.")
    module_spec = importlib.util.spec_from_file_location(f"_diffood_classifier_{file.stem}", file)
    if module_spec is None or module_spec.loader is None:
        raise ExportError(f"{file} cannot be imported as Python.")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        model = getattr(module, name)()
    except AttributeError as error:
        raise ExportError(f"{file.name} has no usable factory {name!r}: {error}") from None
    except DiffoodError:
        raise
    except Exception as error:
        raise ExportError(f"{file.name}:{name} failed with {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ExportError(f"{file.name}:{name} returned {type(model).__name__}, not a torch.nn.Module.")
    return model


def _try_channels(model: nn.Module, size: tuple[int, int], spec: str) -> tuple[int, object]:
    """The first of 3 and 1 channels the module accepts, and what it returned."""
    problems = []
    for channels in (3, 1):
        try:
            with torch.no_grad():
                return channels, model(torch.zeros(2, channels, *size))
        except Exception as error:
            problems.append(f"{channels} channels: {str(error).splitlines()[0] if str(error) else error!r}")
    raise ExportError(f"{spec} takes no image of {size[0]}x{size[1]} ({'; '.join(problems)}). Set --input-size.")


def _last_linear(model: nn.Module, channels: int, size: tuple[int, int]) -> str:
    """Name of the linear layer that ran last."""
    called: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name
    ]
    with torch.no_grad():
        model(torch.zeros(2, channels, *size))
    for hook in hooks:
        hook.remove()
    if not called:
        raise ExportError("The classifier has no linear layer to take features from; return (logits, features).")
    return called[-1]
