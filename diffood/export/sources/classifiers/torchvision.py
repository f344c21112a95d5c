"""A classifier of torchvision's, by name: torchvision:NAME, filled from a local file, or with its own weights."""

import re
from functools import partial
from typing import Any

from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import open_checkpoint
from diffood.export.sources.classifiers.loaded_classifier import LoadedClassifier
from diffood.export.sources.classifiers.named import (
    build_and_fill,
    refuse_download,
    refuse_name,
    refuse_without_weights,
)
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.libraries import import_library
from diffood.export.sources.weights import hash_files, hash_tensors

CLASSES = 1000  # of ImageNet, torchvision's default
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}  # heads that files may have


def load(source: ClassifierSource, _size: tuple[int, int]) -> LoadedClassifier:
    """Build torchvision's NAME (NAME.ENTRY for weights other than the default). Raises ExportError, MissingExtraError.

    Preprocessing is that of the weights' own entry: the one named, the one that a local file is by its name or its
    hash, else the default.
    """
    models = import_library("torchvision", "`torchvision:`", "classifiers").models
    name, _, entry = source.name.partition(".")
    known = models.list_models(module=models)
    if name not in known:
        refuse_name(name, "torchvision", known)
    entries = models.get_model_weights(name)
    if entry and entry not in entries.__members__:
        refuse_name(entry, entries.__name__, entries.__members__)
    weights = entries[entry] if entry else entries.DEFAULT
    origin = f"torchvision {name}"
    notes: tuple[str, ...] = ()
    if source.weights is not None:
        checkpoint = open_checkpoint(source.weights).renamed(_rename_dense)
        build = partial(_build, models, name)
        model, filled = build_and_fill(build, checkpoint, origin, classes=CLASSES, ignored=AUXILIARY.get(name, ()))
        sha256, notes = hash_files(checkpoint.files), filled.notes
        own = None if entry else find_entry(entries, source.weights.stem, sha256)
        weights = own or weights
        if getattr(model, "transform_input", False):
            notes += (f"{name} shifts its input by itself, as it does with torchvision's own weights",)
        if not (own or entry):
            notes += (f"the file is not one of torchvision's own: the preprocessing of {weights} is assumed",)
    elif source.download:
        try:
            model = models.get_model(name, weights=weights)
        except Exception as error:  # of the network, or of a damaged download
            refuse_download(f"torchvision:{name}", error)
        sha256 = hash_tensors(model)
    else:
        refuse_without_weights(f"torchvision:{name}")
    names = tuple(weights.meta["categories"])
    said = f"torchvision's {weights}"
    return LoadedClassifier(model, origin, sha256, read_transforms(weights.transforms()), said, names, notes=notes)


def _build(models: Any, name: str, **changed: int) -> nn.Module:
    # These two take the input that torchvision's own weights expect only where they are told so. Their auxiliary heads
    # are of use in training alone.
    special = {"init_weights": False, "transform_input": True, "aux_logits": False} if name in AUXILIARY else {}
    try:
        model: nn.Module = models.get_model(name, weights=None, **special, **changed)
    except Exception as error:
        raise ExportError(f"torchvision cannot build {name}: {type(error).__name__}: {error}") from None
    return model


def _rename_dense(name: str) -> str:
    """Today's name of a tensor of DenseNet, whose files are from before module names could have no dots."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def find_entry(entries: Any, stem: str, sha256: str) -> Any:
    """The entry whose file this is, by its name or its hash; None where it is not one of torchvision's own."""
    for entry in entries:
        own = entry.url.rpartition("/")[2].removesuffix(".pth")  # NAME-HASH, the first digits of the file's SHA-256
        if stem == own or sha256.startswith(own.rpartition("-")[2]):
            return entry
    return None


def read_transforms(transforms: Any) -> Preprocessing:
    """Read a torchvision.transforms preset: resize the shorter side, crop the centre."""
    (cut,), (resize,) = transforms.crop_size, transforms.resize_size
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    return Preprocessing((cut, cut), mean, std, (resize, resize), True, transforms.interpolation.value)
