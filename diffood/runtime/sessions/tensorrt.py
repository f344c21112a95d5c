"""The TensorRT session: a plan's stages as engines of tensorrt or tensorrt_rtx, each call recorded.

Written without a GPU: the refusals have run, and a test finds every name used here in the installed tensorrt_rtx;
`diffood verify` runs the rest on a machine that has one. For TensorRT 10.3 and newer, TensorRT-RTX 1.2 and newer.
"""

import functools
import importlib
import importlib.util
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from diffood.errors import BundleError, DeviceError, MissingExtraError
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.engines import EngineFolder, EngineLibrary, StageFile, read_plan
from diffood.runtime.records import one_line
from diffood.runtime.sessions import Session, SessionRequest, StageTensors
from diffood.runtime.sessions.cuda import Buffer, Cuda, Device, find_device
from diffood.runtime.sessions.engines import EngineHost, find_engine
from diffood.runtime.sessions.fixed_calls import FixedCalls
from diffood.runtime.sessions.kernel_cache import KernelFile
from diffood.runtime.sessions.out_of_memory import is_out_of_memory, memory_error

MODULES: dict[EngineLibrary, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_REBUILD = "Build the engine again"


def require_backend(backend: Backend, request: SessionRequest | None) -> str:
    """What this library runs on, and which engine. Raises what `load_library` and `find_engine` raise."""
    installed = load_library(cast(EngineLibrary, backend))
    name = find_engine(request, installed.machine).path.name if request else "no bundle asked for"
    return f"{backend} {installed.machine.library_version} on {installed.device}, {name}"


def open_session(backend: Backend, request: SessionRequest) -> Session:
    """See sessions.backends.open_session."""
    return TensorRtSession(cast(EngineLibrary, backend), request)


class TensorRtSession:
    """A plan's engines on one GPU, which must have been built for this machine; calls of a fixed number of images.

    Copied between host and GPU are a stage's inputs and outputs.
    """

    threads = 0

    def __init__(self, library: EngineLibrary, request: SessionRequest) -> None:
        self.backend: Backend = library
        self.precision, self.batch = request.precision, request.batch
        installed = load_library(library)
        built = find_engine(request, installed.machine)
        self.engine_sha256 = built.digest
        device = _GpuDevice(installed, Cuda(library), _create_runtime(installed.module))
        kernels = _Kernels(KernelFile(installed.machine, built.digest, self.batch))
        programs = [_Program(built, stage, device, self.batch, kernels) for stage in built.record.stages]
        kernels.keep()
        self._stages = [FixedCalls(program.run, program.inputs, self.batch) for program in programs]

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        """See Session.run."""
        return self._stages[stage].run(feeds)


@dataclass(frozen=True)
class Installed:
    """An imported library, its version and GPU as engine records name them, and the device it would run on."""

    module: Any
    machine: EngineHost
    device: Device


def load_library(library: EngineLibrary) -> Installed:
    """Import TensorRT or TensorRT-RTX once a device was found: without a driver it may crash.

    Raises MissingExtraError (a package is not installed), DeviceError (no GPU, or the library cannot be loaded).
    """
    name = MODULES[library]
    if importlib.util.find_spec(name) is None:
        raise MissingExtraError(f"{name} is not installed: pip install 'diffood[{library}]'.")
    device = find_device(extra=library)
    try:
        trt = importlib.import_module(name)
        machine = EngineHost(library, str(trt.__version__), device.compute_capability, device.name)
        return Installed(trt, machine, device)
    except (ImportError, OSError, AttributeError) as error:  # AttributeError: a stray folder of this name
        reason = one_line(error)
        raise DeviceError(
            f"{name} is installed and cannot be loaded ({reason}): pip install --force-reinstall 'diffood[{library}]'."
        ) from None


@dataclass(frozen=True)
class _GpuDevice:
    """What the engines of a session share: the library, a stream, and what loads engines."""

    installed: Installed
    cuda: Cuda
    runtime: Any


class _Kernels:
    """What TensorRT-RTX compiles for the GPU when an engine is loaded, kept for the next time. TensorRT has none."""

    def __init__(self, file: KernelFile) -> None:
        self._file, self._cache = file, None

    def attach(self, config: Any) -> None:
        """Have an engine take kernels from here, and add its own."""
        if self._cache is None:
            self._cache = cache = config.create_runtime_cache()
            if known := self._file.read():
                cache.deserialize(known)  # says False of kernels of another GPU or driver, and takes none of them
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write what is here to the file."""
        if (cache := self._cache) is not None:
            self._file.write(bytes(memoryview(cache.serialize())))


class _Program:
    """The engine of a stage on the device, with page-locked arrays for its inputs and outputs, bound once."""

    def __init__(self, built: EngineFolder, stage: StageFile, on: _GpuDevice, batch: int, kernels: _Kernels) -> None:
        trt, library = on.installed.module, on.installed.machine.library
        self._where, self._library, self._cuda = built.path / stage.file, library, on.cuda
        self._log = log = _logger(trt)
        log.errors.clear()
        runtime = on.runtime
        engine = runtime.deserialize_cuda_engine(read_plan(built, stage))  # hashed: only what was built is loaded
        if engine is None:
            log.require_memory(library)
            raise BundleError(f"{library} cannot load {self._where}: {log.said()}. {_REBUILD}.")
        self._context = context = _create_context(trt, engine, library, kernels)
        if context is None:
            log.require_memory(library)
            raise DeviceError(f"{self._where} cannot be prepared to run: {log.said()}. Run `diffood doctor`.")
        self._kernels = kernels  # which must be there as long as the context
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name not in self.inputs]
        for name in self.inputs:
            shape = (batch, *tuple(engine.get_tensor_shape(name))[1:])
            if not context.set_input_shape(name, shape):
                raise BundleError(f"{self._where} does not take {name} of shape {list(shape)}. {_REBUILD}.")
        self._hosts: dict[str, npt.NDArray[Any]] = {}
        self._buffers: dict[str, Buffer] = {}
        types: dict[Any, type[np.generic]] = {trt.DataType.FLOAT: np.float32, trt.DataType.UINT8: np.uint8}
        for name in names:
            kind, shape = engine.get_tensor_dtype(name), tuple(context.get_tensor_shape(name))
            if kind not in types or min(shape) < 0:
                raise BundleError(f"{self._where} has {name} of type {kind} and shape {list(shape)}. {_REBUILD}.")
            self._hosts[name] = host = on.cuda.pinned(shape, types[kind])
            self._buffers[name] = buffer = on.cuda.allocate(host.nbytes)
            context.set_tensor_address(name, buffer.address)
        self._replay = self._record()

    def run(self, feeds: StageTensors) -> StageTensors:
        """Copies of the outputs for feeds of one batch."""
        for name, value in feeds.items():
            self._hosts[name][...] = value
        (self._replay or self._work)()
        self._cuda.synchronize()
        return {name: np.array(self._hosts[name]) for name in self._outputs}

    def _work(self) -> None:
        """Put a whole call on the stream."""
        for name in self.inputs:
            self._cuda.upload(self._buffers[name], self._hosts[name])
        self._log.errors.clear()
        context = self._context
        if not context.execute_async_v3(self._cuda.stream):
            self._log.require_memory(self._library)
            raise DeviceError(
                f"{self._where} cannot run: {self._log.said()}. Run `diffood doctor`, or use another --backend."
            )
        for name in self._outputs:
            self._cuda.download(self._hosts[name], self._buffers[name])

    def _record(self) -> Callable[[], None] | None:
        """Run once, as TensorRT requires before a capture, and record a call; None where it cannot be recorded.

        TensorRT-RTX records by itself what the engine does.
        """
        self._work()
        self._cuda.synchronize()
        replay = None if self._library == "tensorrt-rtx" else self._cuda.record(self._work)
        if replay is None:
            self._work()
            self._cuda.synchronize()
        return replay


def _create_runtime(trt: Any) -> Any:
    """A runtime that refuses engines with host code in them: those built to run on other versions."""
    runtime = trt.Runtime(_logger(trt))
    runtime.engine_host_code_allowed = False
    return runtime


def _create_context(trt: Any, engine: Any, library: EngineLibrary, kernels: _Kernels) -> Any:
    if library == "tensorrt":
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    # By default kernels for our batch are compiled in the background and swapped in between two runs: scores of one
    # image would differ.
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    # It records its own work: a stream that copies too can be captured only if an engine has no memory of its own.
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    kernels.attach(config)
    return engine.create_execution_context(config)


@functools.cache  # TensorRT keeps the first logger of a process for ever
def _logger(trt: Any) -> Any:
    """Keeps the errors that TensorRT reports for the message of the exception, and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=8)  # of one call, which reports cause and consequences

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(msg.split()))

        def said(self) -> str:
            return self.errors[-1].rstrip(".") if self.errors else "no reason was given"

        def require_memory(self, library: str) -> None:
            """Raise EngineMemoryError where one of the errors is about memory."""
            for message in self.errors:
                if is_out_of_memory(message):
                    raise memory_error(library, message)

    return Log()
