"""A classifier out of a Python file of the user's own: FILE.py:FACTORY. The file is executed."""

import importlib.util
from pathlib import Path

from torch import nn

from diffood.errors import DiffoodError, ExportError
from diffood.export.sources.checkpoint import load_checkpoint
from diffood.export.sources.classifiers.loaded_classifier import LoadedClassifier
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.weights import hash_file, load_state

NO_WEIGHTS = "0" * 64  # the factory made them


def load(source: ClassifierSource, _size: tuple[int, int]) -> LoadedClassifier:
    """Build the module and load its weights, if any are given. Raises ExportError saying what does not fit."""
    path, _, name = source.spec.rpartition(":")
    file = Path(path)
    model = _call_factory(file, name)
    origin = f"{file.name}:{name}"
    if source.weights is None:
        return LoadedClassifier(model, origin, NO_WEIGHTS)
    load_state(model, load_checkpoint(source.weights), source.weights.name, origin)
    return LoadedClassifier(model, origin, hash_file(source.weights))


def _call_factory(file: Path, name: str) -> nn.Module:
    if not file.is_file():
        raise ExportError(f"No classifier file {file}; give FILE.py:FACTORY.")
    module_spec = importlib.util.spec_from_file_location(f"_diffood_classifier_{file.stem}", file)
    if module_spec is None or module_spec.loader is None:
        raise ExportError(f"{file} cannot be imported as Python; give FILE.py:FACTORY.")
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
        raise ExportError(
            f"{file.name}:{name} returned {type(model).__name__}, not a torch.nn.Module; return the classifier."
        )
    return model
