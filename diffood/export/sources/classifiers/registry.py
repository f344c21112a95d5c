"""The kinds of classifiers, one line each. Imports no torch, so that help texts can list them.

A new kind is a module of this package with `load(source: ClassifierSource, size: tuple[int, int]) -> LoadedClassifier`
and a line in KINDS.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from diffood.errors import ExportError
from diffood.export.sources.classifiers.source import ClassifierSource

if TYPE_CHECKING:
    from diffood.export.sources.classifiers.loaded_classifier import LoadedClassifier

Loader = Callable[[ClassifierSource, tuple[int, int]], "LoadedClassifier"]

# KIND of KIND:NAME -> what NAME is, and the module that loads it.
KINDS = {
    "timm": ("NAME", "timm"),
    "torchvision": ("NAME", "torchvision"),
    "transformers": ("DIR", "transformers"),
    "onnx": ("FILE", "onnx_classifier"),
}
# The kinds that stand on a library of that name.
LIBRARIES = {kind: kind for kind in ("timm", "torchvision", "transformers")}
FORMS = ", ".join(["FILE.py:FACTORY", *(f"{kind}:{what}" for kind, (what, _) in KINDS.items())])


def find_loader(source: ClassifierSource) -> Loader:
    """The `load` of the module that opens this kind. Raises ExportError for a spec of no known form."""
    if source.kind in KINDS and source.name:
        module = KINDS[source.kind][1]
    elif source.spec.rpartition(":")[0].endswith(".py"):
        module = "factory"
    else:
        raise ExportError(f"Classifier {source.spec!r} is not one of {FORMS}.{_suggest(source.spec)}")
    loader: Loader = importlib.import_module(f"diffood.export.sources.classifiers.{module}").load
    return loader


def _suggest(spec: str) -> str:
    path = Path(spec)
    if path.suffix == ".onnx":
        return f" Did you mean onnx:{spec}?"
    if path.is_dir():
        return f" Did you mean transformers:{spec}?"
    return f" Did you mean timm:{spec} or torchvision:{spec}?" if spec.isidentifier() else ""
