"""Which engines can run a bundle on this machine, and why the others cannot; opens a session on one of them."""

import importlib
from dataclasses import dataclass
from typing import Protocol, cast

from diffood.errors import DeviceError, DiffoodError, MissingExtraError
from diffood.runtime.backends import BACKENDS, Backend, define
from diffood.runtime.records import one_line
from diffood.runtime.sessions import Session, SessionRequest
from diffood.runtime.sessions.out_of_memory import explain_lack_of_memory


class BackendModule(Protocol):
    """What the module of a backend has."""

    def require_backend(self, backend: Backend, request: SessionRequest | None) -> str:
        """What the backend would run on; raises what opening this session, or any, would raise."""

    def open_session(self, backend: Backend, request: SessionRequest) -> Session:
        """A session."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here; reason: what it would run on, or what is missing and how to get it."""

    backend: Backend
    usable: bool
    reason: str


def examine_backends(request: SessionRequest | None) -> list[Availability]:
    """All backends, best first, for a session as asked for; for the machine alone without one.

    Loads no graph and no engine; every failure becomes a reason.
    """
    return [examine_backend(backend, request) for backend in BACKENDS]


def examine_backend(backend: Backend, request: SessionRequest | None) -> Availability:
    """One backend, as examine_backends does."""
    try:
        if request:
            request.bundle.graph("classify", request.precision)
        return Availability(backend, True, _load(backend).require_backend(backend, request))
    except DiffoodError as error:
        return Availability(backend, False, str(error).rstrip("."))
    except Exception as error:  # of an engine library or a driver: the other backends are examined all the same
        reason = one_line(error).rstrip(".")
        return Availability(backend, False, f"looking for it failed ({type(error).__name__}: {reason})")


def open_session(backend: Backend, request: SessionRequest) -> Session:
    """Load the stages of a plan on this backend.

    Raises:
        MissingExtraError: A package is not installed.
        DeviceError: No GPU, or it failed; EngineMemoryError where the graphs or their buffers did not fit.
        BundleError: No engine that fits this machine, or a damaged file; with the reason that examine_backends gives.
    """
    module = _load(backend)
    try:
        with explain_lack_of_memory(backend):
            return module.open_session(backend, request)
    except DiffoodError:
        raise
    except Exception as error:
        if not define(backend).gpu:
            raise
        reason = one_line(error).rstrip(".")  # of a library or a driver, whose errors have no one class
        raise DeviceError(
            f"{backend} cannot be opened ({type(error).__name__}: {reason}). Run `diffood doctor`, or choose another "
            "--backend."
        ) from error


def _load(backend: Backend) -> BackendModule:
    try:
        return cast(BackendModule, importlib.import_module(define(backend).module))
    except ImportError as error:
        package = error.name or backend
        raise MissingExtraError(
            f"{package} cannot be imported ({error}): pip install --force-reinstall {package}."
        ) from None
