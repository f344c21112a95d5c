"""Imports the libraries that models come from, and says what is wrong with one that is missing or broken."""

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from types import ModuleType
from typing import Any

from diffood.errors import ExportError, MissingExtraError
from diffood.runtime.records import one_line

# What imports torchvision; diffusers and transformers do only where it is installed.
_ON_TORCHVISION = ("torchvision", "timm", "transformers", "diffusers")


def require_packages(verb: str, *packages: str) -> None:
    """Import what a command stands on. Raises MissingExtraError and ExportError as `import_library` does."""
    for package in packages:
        import_library(package, f"`{verb}`", "export")


def import_library(name: str, user: str, extra: str) -> ModuleType:
    """A library, for what `user` says in messages.

    Raises:
        MissingExtraError: It is not installed; the message names the extra.
        ExportError: It, or torchvision on which it stands, does not go with what is installed.

    """
    fault = find_fault("torchvision") if name in _ON_TORCHVISION else None
    if fault and name in ("torchvision", "timm"):
        raise ExportError(_describe("torchvision", fault))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"{user} needs {error.name or name}, which is not installed or too old ({error}): "
            f"pip install 'diffood[{extra}]'"
        ) from None
    except Exception as error:
        raise ExportError(_describe(name, _first_reason(error))) from None


def import_diffusers(name: str) -> Any:
    """A class of diffusers. Raises MissingExtraError and ExportError as `import_library` does."""
    library = import_library("diffusers", "A UNet of diffusers", "export")
    try:
        return getattr(library, name)
    except Exception as error:  # its modules are imported when they are asked for
        raise ExportError(_describe("diffusers", _first_reason(error))) from None


@functools.cache
def find_fault(name: str) -> str | None:
    """Why an installed library cannot be imported, None where it can or is not there.

    A torchvision of another torch raises a RuntimeError about an operator, and every library that uses it where it is
    installed fails with it. It is hidden from them: they do without.
    """
    if importlib.util.find_spec(name) is None:
        return None
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.modules[name] = None  # type: ignore[assignment]
        return _first_reason(error)
    return None


def _describe(name: str, reason: str) -> str:
    version = importlib.metadata.version("torch")
    return (
        f"{name} is installed but cannot be imported with torch {version} ({reason}): install the release that goes "
        "with it."
    )


def _first_reason(error: BaseException) -> str:
    """What failed first: libraries wrap an error of an import in errors of their own."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return f"{type(error).__name__}: {one_line(error)[:200]}"
