"""All backends by name, the best first. A new one is a module in sessions/ and a line here; imports none of them.

A plug-in of ONNX Runtime is named with its provider: onnxruntime-plugin:PROVIDER[,KEY=VALUE]...[@LIBRARY]. All but the
library, which says where it is on this machine, is part of what scores depend on.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

AUTO, PLUGIN = "auto", "onnxruntime-plugin"


@dataclass(frozen=True)
class BackendDefinition:
    """One way to run a bundle's plans.

    Attributes:
        module: Its module, imported when it is asked for: a machine has one of these libraries, seldom all. It has
            `require_backend` and `open_session`, see `sessions.backends.BackendModule`.
        gpu: Whether it runs on a GPU.
    """

    module: str
    gpu: bool


BACKENDS: dict[str, BackendDefinition] = {
    "tensorrt": BackendDefinition("diffood.runtime.sessions.tensorrt", gpu=True),
    "tensorrt-rtx": BackendDefinition("diffood.runtime.sessions.tensorrt", gpu=True),
    "onnxruntime-cuda": BackendDefinition("diffood.runtime.sessions.onnxruntime_cuda", gpu=True),
    PLUGIN: BackendDefinition("diffood.runtime.sessions.onnxruntime_plugin", gpu=False),
    "onnxruntime-cpu": BackendDefinition("diffood.runtime.sessions.onnxruntime", gpu=False),
}

_PROVIDER = re.compile(r"[\w.\-]+(,[\w.\-]+=[^,@\x00-\x1f\x7f]+)*(@[^\x00-\x1f\x7f]+)?")


@dataclass(frozen=True)
class PluginProvider:
    """A provider of ONNX Runtime that is not built into it.

    Attributes:
        name: Its name, e.g. QNNExecutionProvider.
        options: What it is told, as (key, value), in order.
        library: Its library; None where ONNX Runtime knows it.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()
    library: Path | None = None

    @property
    def backend(self) -> str:
        """The backend's name, with the library. Raises ValueError for a name or an option that cannot be part of it."""
        words = (self.name, *(f"{key}={value}" for key, value in self.options))
        text = ",".join(words) + ("" if self.library is None else f"@{self.library}")
        return require_known_backend(f"{PLUGIN}:{text}")


def read_provider(backend: str) -> PluginProvider | None:
    """The provider in the name of a backend; None where it has none."""
    _, _, text = backend.partition(":")
    words, _, library = text.partition("@")
    name, *options = words.split(",")
    pairs = tuple((key, value) for key, _, value in (option.partition("=") for option in options))
    return PluginProvider(name, pairs, Path(library) if library else None) if name else None


def define(backend: str) -> BackendDefinition:
    """The definition of a backend with this name."""
    return BACKENDS[backend.partition(":")[0]]


def without_library(backend: str) -> str:
    """The name that scores depend on."""
    return backend.partition("@")[0]


def require_known_backend(name: str) -> str:
    """The name of a backend; ValueError for another."""
    kind, colon, provider = name.partition(":")
    if kind not in BACKENDS or (colon and kind != PLUGIN):
        raise ValueError(f"no such backend; known are {', '.join(BACKENDS)}")
    if colon and not _PROVIDER.fullmatch(provider):
        raise ValueError(
            "a provider's name has letters, digits and _ . - alone; an option is KEY=VALUE, without comma or @ in it"
        )
    return name


def require_recorded_backend(name: str) -> str:
    """The name of a backend in a record, which must not have a machine load a library; ValueError for another."""
    if without_library(name) != name:
        raise ValueError("a record may not name a library to load")
    return require_known_backend(name)


def require_backend_choice(name: str) -> str:
    """The name of a backend, or AUTO; ValueError for another."""
    return name if name == AUTO else require_known_backend(name)


Backend = Annotated[str, AfterValidator(require_known_backend)]
RecordedBackend = Annotated[str, AfterValidator(require_recorded_backend)]
BackendChoice = Annotated[str, AfterValidator(require_backend_choice)]
