"""Loads a classifier from what people have, tries it, and finds its penultimate features. Each source is a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.classifiers import factory, onnx_classifier, timm, torchvision, transformers
from diffood.export.sources.classifiers.features import find_features
from diffood.export.sources.classifiers.loaded import Loaded, Request
from diffood.export.sources.classifiers.network import offline
from diffood.export.sources.classifiers.preprocessing import Preprocessing, require_usable

__all__ = ["Classifier", "Preprocessing", "load_classifier"]

FORMS = "FILE.py:FACTORY, timm:NAME, torchvision:NAME, transformers:DIR or onnx:FILE"
_SOURCES: dict[str, Callable[[Request], Loaded]] = {
    "timm": timm.load,
    "torchvision": torchvision.load,
    "transformers": transformers.load,
    "onnx": onnx_classifier.load,
}


@dataclass(frozen=True)
class Classifier:
    """model(x [B, channels, H, W] in [0, 1], preprocessed) -> (logits [B, K], features [B, D]).

    class_names: the source's own. prepared: what is done to an image before, in words. notes: a line each.
    """

    model: nn.Module
    channels: int
    preprocessing: Preprocessing
    classes: int
    features: int
    features_from: str
    origin: str
    sha256: str
    parameters: int
    prepared: str
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def load_classifier(
    spec: str,
    weights: Path | None,
    height: int,
    width: int,
    preprocessing: Preprocessing,
    *,
    download: bool = False,
    logits: str | None = None,
    features: str | None = None,
) -> Classifier:
    """Load what `spec` names (FORMS) and try it on an image of height x width, prepared as it or the user says.

    preprocessing: the user's own values, which win over the source's. download: whether the network may be used.
    logits, features: tensors of an ONNX graph. Raises ExportError saying what does not fit, MissingExtraError.
    """
    kind, _, name = spec.partition(":")
    load, name = (_SOURCES[kind], name) if kind in _SOURCES and name else (_load_factory(spec), spec)
    if (logits or features) and kind != "onnx":
        raise ExportError(f"--logits-output and --features-output name tensors of onnx:FILE, not of {spec}.")
    request = Request(name, preprocessing.size or (height, width), weights, download, logits, features)
    if download:
        loaded = load(request)
    else:
        with offline():
            loaded = load(request)
    model = loaded.model.eval().float().requires_grad_(False)
    prepared = preprocessing.over(loaded.preprocessing)
    require_usable(prepared, f"The preprocessing of {spec}")
    size = prepared.size or prepared.resized(height, width)
    channels, output = _try_channels(model, size, spec)
    prepared = preprocessing.over(loaded.preprocessing.for_channels(channels))
    features_from = loaded.features_from
    x = torch.zeros(2, channels, *size)
    if isinstance(output, torch.Tensor) and output.ndim == 2:
        model, features_from = find_features(model, x, output.shape[1])
        output = model(x)
    if not (isinstance(output, tuple | list) and len(output) == 2 and all(o.ndim == 2 and len(o) == 2 for o in output)):
        raise ExportError(f"{spec} must return logits [B, K] or (logits [B, K], features [B, D]).")
    for values, what in ((prepared.mean, "mean"), (prepared.std, "std")):
        if values is not None and len(values) not in (1, channels):
            raise ExportError(f"--{what} has {len(values)} values; the classifier takes {channels} channels.")
    found_logits, found_features = output
    classes = found_logits.shape[1]
    said_by = f" ({loaded.said_by})" if loaded.said_by else ""
    return Classifier(
        model,
        channels,
        prepared,
        classes,
        found_features.shape[1],
        features_from,
        loaded.origin,
        loaded.sha256,
        loaded.parameters or sum(parameter.numel() for parameter in model.parameters()),
        f"{channels} channels, {prepared.describe(height, width)}{said_by}",
        loaded.class_names if loaded.class_names and len(loaded.class_names) == classes else None,
        loaded.notes,
    )


def _load_factory(spec: str) -> Callable[[Request], Loaded]:
    """The factory's loader; ExportError for a spec of no form, with the one that was meant."""
    if spec.rpartition(":")[0].endswith(".py"):
        return factory.load
    place, meant = Path(spec), ""
    if place.suffix == ".onnx":
        meant = f" Did you mean onnx:{spec}?"
    elif place.is_dir():
        meant = f" Did you mean transformers:{spec}?"
    elif spec.isidentifier():
        meant = f" Did you mean timm:{spec} or torchvision:{spec}?"
    raise ExportError(f"Classifier {spec!r} is none of {FORMS}.{meant}")


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
