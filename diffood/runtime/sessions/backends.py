"""Which engines can run a bundle on this machine, and why the others cannot; opens a session on one of them."""

from dataclasses import dataclass

from diffood.errors import DiffoodError, MissingExtraError
from diffood.runtime.bundle.bundle import Backend, Bundle, Precision
from diffood.runtime.bundle.engines import find_engine
from diffood.runtime.sessions import Session

PREFERRED: tuple[Backend, ...] = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu")


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
    return [_examine(backend, bundle, precision, batch) for backend in PREFERRED]


def _examine(backend: Backend, bundle: Bundle | None, precision: Precision, batch: int) -> Availability:
    try:
        return Availability(backend, True, _require(backend, bundle, precision, batch))
    except DiffoodError as error:
        return Availability(backend, False, str(error).rstrip("."))


def _require(backend: Backend, bundle: Bundle | None, precision: Precision, batch: int) -> str:
    """What the backend would run on. Raises what opening a session on it would raise."""
    if bundle:
        bundle.graph("classify", precision)
    if backend == "tensorrt" or backend == "tensorrt-rtx":  # noqa: PLR1714 - narrows the type
        from diffood.runtime.sessions.tensorrt import load_library

        installed = load_library(backend)
        name = find_engine(bundle, installed.machine, precision, batch).path.name if bundle else "no bundle asked for"
        return f"{backend} {installed.machine.library_version} on {installed.device}, {name}"
    try:
        import onnxruntime

        found = f"onnxruntime {onnxruntime.__version__}"
    except (ImportError, AttributeError) as error:  # AttributeError: the folder that uninstalling one of two leaves
        raise MissingExtraError(
            f"onnxruntime cannot be imported ({error}): pip install --force-reinstall onnxruntime."
        ) from None
    if backend == "onnxruntime-cuda":
        from diffood.runtime.sessions.onnxruntime_cuda import require_cuda

        require_cuda()
    return found


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
    """Load the graphs a plan needs on this backend; threads are of the CPU's engine, the GPU's ignore them.

    Raises MissingExtraError (a package is not installed), DeviceError (no GPU, or it failed), BundleError (no engine
    that fits this machine, or a damaged file), with the reason that examine_backends gives.
    """
    # Imported here: a machine has one of these engines, seldom all.
    if backend == "onnxruntime-cpu":
        from diffood.runtime.sessions.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(
            bundle, precision=precision, guided=guided, registers=registers, batch=batch, threads=threads
        )
    if backend == "onnxruntime-cuda":
        from diffood.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession

        return OnnxRuntimeCudaSession(bundle, precision=precision, guided=guided, registers=registers, batch=batch)
    from diffood.runtime.sessions.tensorrt import TensorRtSession

    return TensorRtSession(
        bundle, library=backend, precision=precision, guided=guided, registers=registers, batch=batch
    )
