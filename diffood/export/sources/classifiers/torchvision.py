"""A classifier of torchvision's, by name: torchvision:NAME, filled from a local file, or with its own weights."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.classifiers.loaded import Loaded, Request, import_library
from diffood.export.sources.classifiers.named import (
    build_and_fill,
    refuse_download,
    refuse_name,
    refuse_without_weights,
)
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.weights import hash_file, hash_tensors

CLASSES = 1000  # of ImageNet, torchvision's default


def load(request: Request) -> Loaded:
    """Build torchvision's NAME (NAME.ENTRY for weights other than the default). Raises ExportError, MissingExtraError.

    Preprocessing is that of the weights' own entry: the one named, the one that a local file is by its name or its
    hash, else the default.
    """
    models = import_library("torchvision", "torchvision").models
    name, _, entry = request.name.partition(".")
    known = models.list_models(module=models)
    if name not in known:
        refuse_name(name, "torchvision", known)
    weights, assumed = _entry(models.get_model_weights(name), entry, request.weights)
    origin = f"torchvision {name}"
    notes: tuple[str, ...] = ()
    if request.weights is not None:
        model, sha256 = build_and_fill(partial(_build, models, name), request.weights, origin, classes=CLASSES)
        if getattr(model, "transform_input", False):
            notes += (f"{name} shifts its input by itself, as it does with torchvision's own weights",)
        if assumed:
            notes += (f"the file is none of torchvision's own: the preprocessing of {weights} is assumed",)
    elif request.download:
        try:
            model = models.get_model(name, weights=weights)
        except Exception as error:  # of the network, of a file that is not what it should be
            refuse_download(f"torchvision:{name}", error)
        sha256 = hash_tensors(model)
    else:
        refuse_without_weights(f"torchvision:{name}")
    names = tuple(weights.meta["categories"])
    said = f"torchvision's {weights}"
    return Loaded(model, origin, sha256, _preprocessing(weights.transforms()), said, names, notes=notes)


def _build(models: Any, name: str, **changed: int) -> nn.Module:
    # These two take the input that torchvision's own weights expect only where they are told so.
    special = {"init_weights": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    try:
        model: nn.Module = models.get_model(name, weights=None, **special, **changed)
    except Exception as error:
        raise ExportError(f"torchvision cannot build {name}: {type(error).__name__}: {error}") from None
    return model


def _entry(entries: Any, wanted: str, file: Path | None) -> tuple[Any, bool]:
    """The entry of a network's weights, and whether it is only assumed."""
    if wanted:
        if wanted not in entries.__members__:
            refuse_name(wanted, entries.__name__, entries.__members__)
        return entries[wanted], False
    if file is not None and file.is_file():
        sha256 = hash_file(file)
        for entry in entries:
            # NAME-HASH.pth, the first digits of the file's sha256
            stem = entry.url.rpartition("/")[2].removesuffix(".pth")
            if file.stem == stem or sha256.startswith(stem.rpartition("-")[2]):
                return entry, False
    return entries.DEFAULT, file is not None


def _preprocessing(transforms: Any) -> Preprocessing:
    """Of a torchvision.transforms preset for classification: resize the shorter side, cut out the centre."""
    (cut,), (resize,) = transforms.crop_size, transforms.resize_size
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    return Preprocessing((cut, cut), mean, std, (resize, resize), True, transforms.interpolation.value)
