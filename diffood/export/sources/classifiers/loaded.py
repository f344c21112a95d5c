"""What is asked of a source of classifiers, and what it gives: the words in which they all speak."""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from diffood.errors import ExportError, MissingExtraError
from diffood.export.sources.classifiers.preprocessing import Preprocessing


@dataclass(frozen=True)
class Request:
    """name: a SPEC after its kind. size: (H, W) of the images it will see, where it names none itself.

    weights: a local file. download: whether the source may use the network. logits, features: names of an ONNX graph's
    tensors, where they cannot be found.
    """

    name: str
    size: tuple[int, int]
    weights: Path | None = None
    download: bool = False
    logits: str | None = None
    features: str | None = None


@dataclass(frozen=True)
class Loaded:
    """A classifier as its source gives it: model(x [B, C, H, W], preprocessed) -> logits or (logits, features).

    preprocessing and class_names: what the source says of them; said_by: in which words. features_from: where the
    features come from, if it is the source that gives them. notes: what else the user should know, a line each.
    parameters: how many, where the module does not hold them.
    """

    model: nn.Module
    origin: str
    sha256: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    said_by: str = ""
    class_names: tuple[str, ...] | None = None
    features_from: str = "its second output"
    notes: tuple[str, ...] = ()
    parameters: int | None = None


def import_library(name: str, kind: str) -> ModuleType:
    """A library a source stands on. MissingExtraError without it, ExportError where it does not go with torch."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise MissingExtraError(
            f"`{kind}:` needs {missing}, which is not installed or too old ({error}): "
            "pip install 'diffood[classifiers]'"
        ) from None
    except Exception as error:  # torchvision beside another torch is a RuntimeError about an operator
        reason = " ".join(str(error).split())[:200]
        raise ExportError(
            f"{name} is installed but cannot be imported beside torch {torch.__version__} ({reason}): "
            "install the release that goes with it."
        ) from None
