"""A classifier of timm's, by name: timm:NAME, filled from a local file, or with its own weights if asked to fetch."""

import math
from collections.abc import Mapping
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


def load(source: ClassifierSource, _size: tuple[int, int]) -> LoadedClassifier:
    """Build timm's NAME (NAME.TAG for the config of other weights). Raises ExportError, MissingExtraError."""
    timm = import_library("timm", "`timm:`", "classifiers")
    name, origin = source.name, f"timm {source.name}"
    notes: tuple[str, ...] = ()
    if not set(":/").isdisjoint(name) or not timm.is_model(name):
        refuse_name(name, "timm", timm.list_models())
    try:
        config = timm.get_pretrained_cfg(name)
    except Exception as error:
        raise ExportError(f"timm has no config for {name!r}: {error}") from None
    build = partial(_build, timm, name)
    if source.weights is not None:
        classes = getattr(config, "num_classes", None) or 1000
        channels = (getattr(config, "input_size", None) or (3,))[0]
        checkpoint = open_checkpoint(source.weights)
        model, filled = build_and_fill(build, checkpoint, origin, classes=classes, channels=channels)
        sha256, notes = hash_files(checkpoint.files), filled.notes
    elif source.download:
        try:
            model = timm.create_model(name, pretrained=True)
        except Exception as error:  # of the network, of the hub, of a model without weights
            refuse_download(f"timm:{name}", error)
        sha256 = hash_tensors(model)
    else:
        refuse_without_weights(f"timm:{name}")
    found = timm.data.resolve_model_data_config(model)
    names, whose = _class_names(timm, model)
    tag = getattr(config, "tag", None) or ""
    said = f"timm's config of {name.partition('.')[0]}{f'.{tag}' if tag else ''}"
    return LoadedClassifier(model, origin, sha256, read_config(found), said, names, notes=notes + whose)


def _build(timm: Any, name: str, **changed: int) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **changed)
    except Exception as error:
        raise ExportError(f"timm cannot build {name}: {type(error).__name__}: {error}") from None
    return model


def read_config(found: Mapping[str, Any]) -> Preprocessing:
    """The evaluation transform of timm's data config: resize to size / crop_pct by its filter, cut out the centre."""
    height, width = found["input_size"][1:]
    mode, share = found["crop_mode"], found["crop_pct"]
    if mode not in ("center", "squash"):
        raise ExportError(f"timm's config asks for crop mode {mode!r}, which is not supported: center and squash are.")
    resize = math.floor(height / share), math.floor(width / share)
    mean, std = tuple(found["mean"]), tuple(found["std"])
    return Preprocessing((height, width), mean, std, resize, mode == "center", found["interpolation"])


def _class_names(timm: Any, model: Any) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The names of the classes, if the config has or implies them, and a note on what is implied."""
    given = model.pretrained_cfg.get("label_names")
    if given and len(given) == model.num_classes:
        return tuple(given), ()
    subset = timm.data.infer_imagenet_subset(model)
    if subset is None:
        return None, ()
    names = tuple(timm.data.ImageNetInfo(subset).label_descriptions())
    return names, (f"{model.num_classes} classes are taken for {subset}'s; --class-names says otherwise",)
