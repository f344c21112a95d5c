"""Which engines can run a bundle on this machine, and why the others cannot; opens a session on one of them."""

import importlib
from dataclasses import dataclass
from typing import Protocol, cast

from diffood.errors import DeviceError, DiffoodError, MissingExtraError
from diffood.runtime.backends import BACKENDS, Backend
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.sessions import Session
from diffood.runtime.sessions.out_of_memory import explain_lack_of_memory


class BackendModule(Protocol):
    """What the module of a backend has."""

    def require_backend(self, backend: Backend, bundle: Bundle | None, precision: Precision, batch: int) -> str:
        """What the backend would run on, for this bundle or for any; raises what opening a session would raise."""

    def open_session(
        self,
        bundle: Bundle,
        backend: Backend,
        precision: Precision,
        *,
        guided: bool,
        registers: int,
        batch: int,
        threads: int,
    ) -> Session:
        """A session with the graphs that a plan needs."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here; reason: what it would run on, or what is missing and how to get it."""

    backend: Backend
    usable: bool
    reason: str


def examine_backends(bundle: Bundle | None, precision: Precision, batch: int) -> list[Availability]:
    """All backends, best first, for this bundle in this precision; for the machine alone without one.

    Loads no graph and no engine; every failure becomes a reason.
    """
    return [examine_backend(backend, bundle, precision, batch) for backend in BACKENDS]


def examine_backend(backend: Backend, bundle: Bundle | None, precision: Precision, batch: int) -> Availability:
    """One backend, as examine_backends does."""
    try:
        if bundle:
            bundle.graph("classify", precision)
        return Availability(backend, True, _load(backend).require_backend(backend, bundle, precision, batch))
    except DiffoodError as error:
        return Availability(backend, False, str(error).rstrip("."))
    except Exception as error:  # of an engine library or a driver: the other backends are examined all the same
        reason = " ".join(str(error).split()).rstrip(".")
        return Availability(backend, False, f"looking for it failed ({type(error).__name__}: {reason})")


def open_session(
    bundle: Bundle,
    backend: Backend,
    precision: Precision,
    *,
    guided: bool,
    registers: int,
    batch: int,
    threads: int,
) -> Session:
    """Load the graphs a plan needs on this backend; threads are of the CPU's engine, GPUs ignore them.

    Raises:
        MissingExtraError: A package is not installed.
        DeviceError: No GPU, or it failed; EngineMemoryError where the graphs or their buffers did not fit.
        BundleError: No engine that fits this machine, or a damaged file; with the reason that examine_backends gives.
    """
    module = _load(backend)
    try:
        with explain_lack_of_memory(backend):
            return module.open_session(
                bundle, backend, precision, guided=guided, registers=registers, batch=batch, threads=threads
            )
    except DiffoodError:
        raise
    except Exception as error:
        if not BACKENDS[backend].gpu:
            raise
        reason = " ".join(str(error).split()).rstrip(".")  # of a library or a driver, whose errors have no one class
        raise DeviceError(
            f"{backend} cannot be opened ({type(error).__name__}: {reason}). Run `diffood doctor`, or choose another "
            "--backend."
        ) from error


def _load(backend: Backend) -> BackendModule:
    try:
        return cast(BackendModule, importlib.import_module(BACKENDS[backend].module))
    except ImportError as error:
        package = error.name or backend
        raise MissingExtraError(
            f"{package} cannot be imported ({error}): pip install --force-reinstall {package}."
        ) from None
