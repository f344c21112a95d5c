"""The TensorRT session: a bundle's engines on tensorrt or tensorrt_rtx, with the lanes in GPU memory.

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

from diffood.errors import BundleError, DeviceError, MissingExtraError
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision, Role
from diffood.runtime.bundle.engines import EngineFolder, EngineHost, EngineLibrary, find_engine, read_plan
from diffood.runtime.bundle.graphs import autoencoder_roles, step_role
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import Classified, Session, StepInputs
from diffood.runtime.sessions.cuda import Buffer, Cuda, Device, find_device
from diffood.runtime.sessions.graphs import FLOAT, INT64, Tensor, Tensors, expected_tensors, require_tensors
from diffood.runtime.sessions.host import combine_registers, run_padded
from diffood.runtime.sessions.out_of_memory import is_out_of_memory, memory_error

MODULES: dict[EngineLibrary, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_REBUILD = "Build the engine again"
_ITEM_BYTES = {FLOAT: 4, INT64: 8}
_TYPES = {FLOAT: np.float32, INT64: np.int64}


def require_backend(backend: Backend, bundle: Bundle | None, precision: Precision, batch: int) -> str:
    """What this library runs on, and which engine. Raises what `load_library` and `find_engine` raise."""
    installed = load_library(cast(EngineLibrary, backend))
    name = find_engine(bundle, installed.machine, precision, batch).path.name if bundle else "no bundle asked for"
    return f"{backend} {installed.machine.library_version} on {installed.device}, {name}"


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
    """See sessions.backends.open_session."""
    return TensorRtSession(
        bundle,
        library=cast(EngineLibrary, backend),
        precision=precision,
        guided=guided,
        registers=registers,
        batch=batch,
    )


class TensorRtSession:
    """A plan's engines on one GPU, for a fixed batch; the engines must have been built for this machine.

    Copied between host and GPU are images, denoised images, latents, logits, features, and the numbers of a step. The
    registers of multistep samplers are combined on the host: such a step copies all lanes to the host and back.
    """

    threads = 0

    def __init__(
        self,
        bundle: Bundle,
        *,
        library: EngineLibrary,
        precision: Precision = "fp32",
        guided: bool,
        registers: int,
        batch: int,
    ) -> None:
        self.backend: Backend = library
        self.precision, self.batch = precision, batch
        installed = load_library(library)
        record = find_engine(bundle, installed.machine, precision, batch)
        self.engine_sha256 = record.digest
        self._cuda = cuda = Cuda(library)
        runtime = _create_runtime(installed.module)
        load = functools.partial(_Program, bundle, record, installed, runtime, cuda, batch)
        self._maps = {role: _EngineMap(load(role), cuda, batch) for role in ("classify", *autoencoder_roles(bundle))}
        if bundle.manifest.unet is not None:  # else no plan has steps
            self._step = load(step_role(guided=guided), carry=("x_next", "x"))
        row = bundle.manifest.lane_shape
        self._lanes, self._taken = cuda.pinned((batch, *row)), cuda.pinned(row)
        self._registers: Array = np.zeros((registers, *self._lanes.shape), np.float32)
        self._epsilon = cuda.pinned(self._lanes.shape)

    def classify(self, x: Array) -> Classified:
        """See Session.classify."""
        return Classified(*run_padded(x, self.batch, self._maps["classify"].run))

    def encode(self, x: Array) -> Array:
        """See Session.encode."""
        return run_padded(x, self.batch, self._maps["encode"].run)[0]

    def decode(self, z: Array) -> Array:
        """See Session.decode."""
        return run_padded(z, self.batch, self._maps["decode"].run)[0]

    def put(self, lane: int, x: Array) -> None:
        """See Session.put."""
        self._lanes[lane] = x
        self._cuda.upload(self._step.buffers["x"], self._lanes[lane], lane * self._taken.nbytes)

    def step(self, inputs: StepInputs) -> None:
        """See Session.step."""
        for name, tensor in self._step.inputs.items():
            if name != "x":
                values = np.ascontiguousarray(getattr(inputs, name), _TYPES[str(tensor[0])])
                self._cuda.upload(self._step.buffers[name], values)
        self._step.run()
        if len(self._registers):
            self._cuda.download(self._lanes, self._step.buffers["x"])
            self._cuda.download(self._epsilon, self._step.buffers["epsilon"])
            self._cuda.synchronize()
            combine_registers(self._lanes, self._registers, inputs, self._epsilon)
            self._cuda.upload(self._step.buffers["x"], self._lanes)

    def take(self, lane: int) -> Array:
        """See Session.take."""
        self._cuda.download(self._taken, self._step.buffers["x"], lane * self._taken.nbytes)
        self._cuda.synchronize()
        return np.array(self._taken)

    def synchronize(self) -> None:
        """See Session.synchronize."""
        self._cuda.synchronize()


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
        reason = " ".join(str(error).split())
        raise DeviceError(
            f"{name} is installed and cannot be loaded ({reason}): pip install --force-reinstall 'diffood[{library}]'."
        ) from None


class _Program:
    """One engine on the device, with its buffers bound once and its run recorded as a CUDA graph if CUDA can.

    carry: (output, input) of one shape; every run ends by copying the first into the second.
    """

    def __init__(
        self,
        bundle: Bundle,
        record: EngineFolder,
        installed: Installed,
        runtime: Any,
        cuda: Cuda,
        batch: int,
        role: Role,
        carry: tuple[str, str] | None = None,
    ) -> None:
        trt = installed.module
        plan = read_plan(record, role)  # hashed there: only what was built is deserialised
        where = record.path / role
        library, log = installed.machine.library, _logger(trt)
        log.errors.clear()
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            log.require_memory(library)
            raise BundleError(f"{library} cannot load {where}: {log.said()}. {_REBUILD}.")
        require_tensors(where, bundle, role, *_tensors(trt, engine, batch), remedy=_REBUILD)
        self.inputs, self.outputs = expected_tensors(bundle, role)
        self._context = context = _create_context(trt, engine, library)  # a recorded run needs it
        if context is None:
            log.require_memory(library)
            raise DeviceError(f"{where} cannot be prepared to run: {log.said()}. Run `diffood doctor`.")
        self.buffers: dict[str, Buffer] = {}
        for name, (kind, _, *rest) in {**self.inputs, **self.outputs}.items():
            shape = (batch, *(int(size or 0) for size in rest))
            self.buffers[name] = buffer = cuda.allocate(_ITEM_BYTES[str(kind)] * int(np.prod(shape)))
            if name in self.inputs and not context.set_input_shape(name, shape):
                raise BundleError(f"{where} does not take {name} of shape {list(shape)}. {_REBUILD}.")
            context.set_tensor_address(name, buffer.address)

        def work() -> None:
            log.errors.clear()
            if not context.execute_async_v3(cuda.stream):
                log.require_memory(library)
                raise DeviceError(f"{where} cannot run: {log.said()}. Run `diffood doctor`, or use another --backend.")
            if carry:
                cuda.copy(self.buffers[carry[1]], self.buffers[carry[0]])

        self.run = _record(work, cuda, context, library)


class _EngineMap:
    """A stateless program of one input, with page-locked arrays for its input and outputs."""

    def __init__(self, program: _Program, cuda: Cuda, batch: int) -> None:
        self._program, self._cuda = program, cuda
        rows, self._results = (
            {name: cuda.pinned((batch, *(int(size or 0) for size in rest))) for name, (_, _, *rest) in tensors.items()}
            for tensors in (program.inputs, program.outputs)
        )
        ((self._input, self._rows),) = rows.items()

    def run(self, rows: Array) -> list[Array]:
        """Copies of the outputs for rows [B, C, H, W]."""
        self._rows[...] = rows
        self._cuda.upload(self._program.buffers[self._input], self._rows)
        self._program.run()
        for name, result in self._results.items():
            self._cuda.download(result, self._program.buffers[name])
        self._cuda.synchronize()
        return [np.array(result) for result in self._results.values()]


def _record(work: Callable[[], None], cuda: Cuda, context: Any, library: EngineLibrary) -> Callable[[], None]:
    """Run once, as TensorRT requires before a capture, and record; if that fails, return `work` itself."""
    work()
    cuda.synchronize()
    # TensorRT-RTX says whether a run allocates memory, which cannot be recorded; with TensorRT only trying tells.
    if library == "tensorrt-rtx" and not context.is_stream_capturable(cuda.stream):
        return work
    replay = cuda.record(work)
    if replay is None:
        work()
        cuda.synchronize()
    return replay or work


def _create_runtime(trt: Any) -> Any:
    """A runtime that refuses engines with host code in them: those built to run on other versions."""
    runtime = trt.Runtime(_logger(trt))
    runtime.engine_host_code_allowed = False
    return runtime


def _create_context(trt: Any, engine: Any, library: EngineLibrary) -> Any:
    if library == "tensorrt":
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    # By default kernels for our batch are compiled in the background and swapped in between two runs: scores of one
    # image would differ, and a recorded run would keep the slow ones.
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    return engine.create_execution_context(config)


def _tensors(trt: Any, engine: Any, batch: int) -> tuple[Tensors, Tensors]:
    """Inputs and outputs of an engine with ONNX's type names; a first dimension of -1 or of the batch is free."""
    words = {trt.DataType.FLOAT: FLOAT, trt.DataType.INT64: INT64}
    inputs: Tensors = {}
    outputs: Tensors = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind, shape = engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))
        sizes = (None if size == -1 or (axis == 0 and size == batch) else size for axis, size in enumerate(shape))
        tensor: Tensor = (words.get(kind, f"tensor({kind.name.lower()})"), *sizes)
        (inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs)[name] = tensor
    return inputs, outputs


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
