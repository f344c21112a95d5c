"""Loads a classifier from what people have, tries it on an image, and finds its penultimate features."""

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.classifiers.features import find_features
from diffood.export.sources.classifiers.loaded_classifier import LoadedClassifier
from diffood.export.sources.classifiers.logits import draw_pictures, require_logits, take_logits
from diffood.export.sources.classifiers.network import offline
from diffood.export.sources.classifiers.preprocessing import Preprocessing, require_usable
from diffood.export.sources.classifiers.registry import find_loader
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.classifiers.wrappers import Eager, run_eagerly
from diffood.export.sources.weights import require_finite
from diffood.runtime.images.decode import ImageShape

AUTOCAST = "its forward asks for autocast or torch.compile; it is exported without, in the precision of its weights"


@dataclass(frozen=True)
class Classifier:
    """A classifier that was tried on an image.

    Attributes:
        model: Maps x [B, channels, H, W], preprocessed, to (logits [B, K], features [B, D]).
        channels: Of its images, 1 or 3.
        preprocessing: What has to be done to an image first; x in [0, 1] before.
        classes: K.
        features: D.
        features_from: Where the features come from, for the user.
        origin: What it was loaded from, for the user.
        sha256: Hash of its weights.
        parameters: How many it has.
        prepared: The preprocessing, for the user.
        class_names: The source's own, None where it has none that fit.
        notes: What else the user should know, one line each.

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


USUAL_SIZE = 224  # pixels a side that a classifier is tried on which does not say what it takes


def load_classifier_alone(source: ClassifierSource) -> tuple[Classifier, ImageShape]:
    """Load a classifier, and the shape of the images to give it: before a crop, at the size it or the user says.

    Raises as `load_classifier` does, and ExportError where nobody says a size.
    """
    height, width = source.preprocessing.size or (USUAL_SIZE, USUAL_SIZE)
    found = load_classifier(source, height, width)
    size = found.preprocessing.resize or found.preprocessing.size
    if size is None:
        raise ExportError(
            f"{source.spec} does not say what size of images it takes, and there is no UNet that does: add "
            "--input-size HxW, the size it was trained at."
        )
    if size != (height, width):
        found = load_classifier(source, *size)
    return found, ImageShape(found.channels, *size)


def load_classifier(source: ClassifierSource, height: int, width: int) -> Classifier:
    """Load a classifier and try it on an image of height x width, prepared as it or the user says.

    Raises:
        ExportError: Something does not fit; the message says what.
        MissingExtraError: The library it needs is not installed.

    """
    loaded = _load(source, (height, width))
    model = loaded.model.eval().float().requires_grad_(False)
    prepared = source.preprocessing.with_defaults_from(loaded.preprocessing)
    require_usable(prepared, f"The preprocessing of {source.spec}")
    size = prepared.size or prepared.resized(height, width)
    parameters = dict(model.named_parameters())
    require_finite((*parameters.items(), *model.named_buffers()), f"of {loaded.origin}", set(parameters))
    channels, output, plain = _try_channels(model, size, source.spec)
    model = model if plain else Eager(model)
    prepared = source.preprocessing.with_defaults_from(loaded.preprocessing.for_channels(channels))
    _require_values_per_channel(prepared, channels)
    features_from = loaded.features_from
    pictures, notes = draw_pictures(channels, size, prepared), loaded.notes
    if isinstance(output, torch.Tensor) and output.ndim == 2:
        model, features_from = find_features(model, pictures[:2], output.shape[1])
        if note := take_logits(model, pictures):
            notes = (*notes, note)
        output = model(pictures[:2])
    if not (isinstance(output, tuple | list) and len(output) == 2 and all(o.ndim == 2 and len(o) == 2 for o in output)):
        raise ExportError(f"{source.spec} must return logits [B, K] or (logits [B, K], features [B, D]).")
    logits, features = output
    with torch.no_grad():
        require_logits(model(pictures)[0], source.spec)
    classes = logits.shape[1]
    said_by = f" ({loaded.said_by})" if loaded.said_by else ""
    return Classifier(
        model=model,
        channels=channels,
        preprocessing=prepared,
        classes=classes,
        features=features.shape[1],
        features_from=features_from,
        origin=loaded.origin,
        sha256=loaded.sha256,
        parameters=loaded.parameters or sum(parameter.numel() for parameter in model.parameters()),
        prepared=f"{channels} channels, {prepared.describe(height, width)}{said_by}",
        class_names=loaded.class_names if loaded.class_names and len(loaded.class_names) == classes else None,
        notes=notes if plain else (*notes, AUTOCAST),
    )


def _load(source: ClassifierSource, size: tuple[int, int]) -> LoadedClassifier:
    load = find_loader(source)
    if (source.logits or source.features) and source.kind != "onnx":
        raise ExportError(f"--logits-output and --features-output name tensors of onnx:FILE, not of {source.spec}.")
    with contextlib.nullcontext() if source.download else offline():
        return load(source, source.preprocessing.size or size)


def _require_values_per_channel(prepared: Preprocessing, channels: int) -> None:
    for values, what in ((prepared.mean, "mean"), (prepared.std, "std")):
        if values is not None and len(values) not in (1, channels):
            raise ExportError(
                f"--{what} has {len(values)} values; the classifier takes {channels} channels: give one or {channels}."
            )


def _try_channels(model: nn.Module, size: tuple[int, int], spec: str) -> tuple[int, object, bool]:
    """The first of 3 and 1 channels the module accepts, what it returned, and whether it needs no `Eager` for that."""
    problems = []
    for channels in (3, 1):
        try:
            output, wrapped = run_eagerly(model, torch.zeros(2, channels, *size))
        except Exception as error:
            problems.append(f"{channels} channels: {str(error).splitlines()[0] if str(error) else error!r}")
        else:
            return channels, output, not wrapped
    raise ExportError(
        f"{spec} does not accept images of {size[0]}x{size[1]} ({'; '.join(problems)}). Set --input-size."
    )
