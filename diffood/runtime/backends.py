"""All backends by name, the best first. A new one is a module in sessions/ and a line here; imports none of them."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

AUTO = "auto"


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
    "onnxruntime-cpu": BackendDefinition("diffood.runtime.sessions.onnxruntime", gpu=False),
}


def require_known_backend(name: str) -> str:
    """The name of a backend; ValueError for another."""
    if name not in BACKENDS:
        raise ValueError(f"no such backend; known are {', '.join(BACKENDS)}")
    return name


def require_backend_choice(name: str) -> str:
    """The name of a backend, or AUTO; ValueError for another."""
    return name if name == AUTO else require_known_backend(name)


Backend = Annotated[str, AfterValidator(require_known_backend)]
BackendChoice = Annotated[str, AfterValidator(require_backend_choice)]
