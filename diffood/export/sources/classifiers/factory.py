"""A classifier out of a Python file of the user's own: FILE.py:FACTORY. The file is executed.

The file is imported as Python imports it in its project: its folder is on the path, and where it has relative imports,
its folder is a package, with those above it that have `__init__.py`.
"""

import ast
import difflib
import importlib
import inspect
import sys
import traceback
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from diffood.errors import DiffoodError, ExportError
from diffood.export.sources.checkpoint import open_checkpoint
from diffood.export.sources.classifiers.loaded_classifier import LoadedClassifier
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.classifiers.wrappers import unwrap_module
from diffood.export.sources.weights import find_state, hash_files, load_state
from diffood.runtime.records import one_line

NO_WEIGHTS = "0" * 64  # the factory made them
_ROOT = "_diffood_factory"  # a package above the user's own, so that no name of theirs hides an installed one


def load(source: ClassifierSource, _size: tuple[int, int]) -> LoadedClassifier:
    """Build the module and load its weights, if any are given. Raises ExportError saying what does not fit."""
    path, _, name = source.spec.rpartition(":")
    file = Path(path)
    origin = f"{file.name}:{name}"
    model = unwrap_module(_make_module(file, name), origin)
    if source.weights is None:
        if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
            raise ExportError(
                f"{origin} has lazy layers, whose weights do not exist yet: give --classifier-weights, or load them in "
                "the factory."
            )
        return LoadedClassifier(model, origin, NO_WEIGHTS)
    checkpoint = open_checkpoint(source.weights)
    found = find_state(model, checkpoint, origin)
    load_state(model, found, checkpoint.name, origin)
    return LoadedClassifier(model, origin, hash_files(checkpoint.files), notes=found.notes)


def _make_module(file: Path, name: str) -> nn.Module:
    """Import the file and call its factory."""
    if not file.is_file():
        raise ExportError(f"No classifier file {file}; give FILE.py:FACTORY.")
    where = f"{file.name}:{name}"
    try:
        module = _import(file.resolve())
        factory = _find_factory(module, file, name)
        made = factory if isinstance(factory, nn.Module) else factory()
    except DiffoodError:
        raise
    except SystemExit as error:
        raise ExportError(
            f"{where} ended the program (SystemExit: {error}), as a script that reads its own arguments does; put "
            'that part under `if __name__ == "__main__":`.'
        ) from None
    except Exception as error:
        raise ExportError(f"{where} failed with {_describe(error, file)}") from error
    if not isinstance(made, nn.Module):
        raise ExportError(f"{where} returned {type(made).__name__}, not a torch.nn.Module; return the classifier.")
    return made


def _import(file: Path) -> ModuleType:
    """Import a file below `_ROOT`; its folder stays on the path for imports of its functions."""
    _forget_last()
    package = _climb(file.parent)
    folders = [str(folder) for folder in dict.fromkeys((file.parent, package))]
    top, levels = package, _count_levels(file)
    if levels == 0:  # no relative import: what the packages around it import is of no interest
        top = file.parent
    elif len(file.parent.parents) >= levels > len(file.parent.relative_to(package).parts):
        top = [file.parent, *file.parent.parents][levels - 1]
    root = ModuleType(_ROOT, "Above the module of the user's factory.")
    root.__path__ = [str(top)]
    root.known = {name.partition(".")[0] for name in sys.modules}  # type: ignore[attr-defined]
    root.folders, root.added = folders, set(folders) - set(sys.path)  # type: ignore[attr-defined]
    sys.modules[_ROOT] = root
    sys.path[:0] = folders
    importlib.invalidate_caches()
    try:
        return importlib.import_module(".".join([_ROOT, *file.relative_to(top).with_suffix("").parts]))
    finally:
        # Last from now on: a neighbour called as a library of ours must not be imported in its place.
        del sys.path[: len(folders)]
        sys.path += [folder for folder in folders if folder not in sys.path]


def _climb(folder: Path) -> Path:
    """The folder that a package, or the packages around it, lie in; the folder itself where it is none."""
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _count_levels(file: Path) -> int:
    """The most dots with which a file imports; 0 where it cannot be read, which its import will say."""
    try:
        nodes = ast.walk(ast.parse(file.read_bytes()))
    except (OSError, SyntaxError, ValueError):
        return 0
    return max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)


def _forget_last() -> None:
    """Forget the modules of the last factory: another one's neighbours may have the same names."""
    root = sys.modules.get(_ROOT)
    if root is None:
        return
    for name, module in list(sys.modules.items()):
        first, place = name.partition(".")[0], getattr(module, "__file__", None) or ""
        theirs = first not in root.known and "site-packages" not in place
        if first == _ROOT or (theirs and any(place.startswith(f"{folder}/") for folder in root.folders)):
            del sys.modules[name]
    sys.path[:] = [folder for folder in sys.path if folder not in root.added]


def _find_factory(module: ModuleType, file: Path, name: str) -> Any:
    """What FACTORY names: a function, a class or a module that was made already."""
    try:
        factory = attrgetter(name)(module)
    except AttributeError:
        own = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        near = difflib.get_close_matches(name, own, 3) or own[:3]
        known = f"; did you mean {', '.join(near)}?" if near else "; it defines no function."
        raise ExportError(f"{file.name} has no usable factory {name!r}{known}") from None
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise ExportError(f"{file.name}:{name} is a {type(factory).__name__}; name a function that returns the module.")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ExportError(
            f"{file.name}:{name} is called without arguments ({error}): write a function without any that calls it."
        ) from None
    except ValueError:  # of a callable without a signature
        pass
    return factory


def _describe(error: Exception, file: Path) -> str:
    """The error, and the last line of the user's own files in which it came up."""
    folder = file.resolve().parent
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if folder in Path(frame.filename).parents]
    if isinstance(error, SyntaxError):
        place = f" ({Path(error.filename or file).name}, line {error.lineno})"
        return f"{type(error).__name__}: {error.msg}{place}"
    place = f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = ". Install it in the environment of diffood, or put the file into its folder"
    return f"{type(error).__name__}: {one_line(error)[:300]}{place}{hint}"
