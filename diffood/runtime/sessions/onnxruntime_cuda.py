"""The CUDA session: a plan's stages on ONNX Runtime's CUDA provider.

Ran on an H100 (docs/gpu.md); tested on every machine are the refusal, and the same code with its buffers on the CPU.
"""

import contextlib
import functools
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime

from diffood.errors import DeviceError, EngineMemoryError, MissingExtraError
from diffood.runtime.assembly.recipe import Recipe, Stage, list_stages, make_recipe
from diffood.runtime.backends import Backend
from diffood.runtime.onnx.layer_norms import as_layer_norms
from diffood.runtime.records import one_line
from diffood.runtime.sessions import Session, SessionRequest, StageTensors
from diffood.runtime.sessions.cuda import Device, find_device
from diffood.runtime.sessions.fixed_calls import FixedCalls
from diffood.runtime.sessions.onnxruntime import LIBRARY, ProviderSettings, load_stage, start_session
from diffood.runtime.sessions.onnxruntime import require_backend as require_onnxruntime
from diffood.runtime.sessions.out_of_memory import explain_failed_call

PROVIDER, DEVICE = "CUDAExecutionProvider", "cuda"
OPTIONS = {
    "device_id": "0",
    "use_tf32": "0",  # FP32 is what the others are measured against: all its bits
    "cudnn_conv_algo_search": "HEURISTIC",  # the default measures, and may choose another kernel on the next start
}
# Without TF32 cuDNN is asked for kernels without tensor cores, of which FP16 has none; its products are of FP16 alone.
HALF = {"use_tf32": "1", "prefer_nhwc": "1"}
RECORDED = {"enable_cuda_graph": "1"}
"""ONNX Runtime records a stage's first call as a CUDA graph and replays it: no launches of a thousand small kernels."""
# An ONNX file, opset 13: y = Conv(x, x) of x [1, 1, 3, 3], the sum of squares. A convolution needs cuDNN, which newer
# versions load only then.
PROBE = bytes.fromhex(
    "08083a4e0a0f0a01780a01781201792204436f6e761201705a1b0a017812160a14080112"
    "100a0208010a0208010a0208030a020803621b0a017912160a14080112100a0208010a02"
    "08010a0208010a02080142040a00100d"
)
PROBE_INPUT = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
LAST_FOR_CUDA_12 = "onnxruntime-gpu[cuda,cudnn]<1.27"  # from 1.27 on, PyPI's wheels are built for CUDA 13
_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
# All sessions of a process call CUDA in it. ONNX Runtime records a graph for each thread that calls a session, and
# recording fails, as does the other call, where another thread copies or waits meanwhile.
_THREAD = ThreadPoolExecutor(1, "cuda")
_FATAL, _WARNING = 4, 2  # severities of ONNX Runtime's default logger; the second is what it starts with


def require_backend(backend: Backend, request: SessionRequest | None) -> str:
    """What this backend runs on. Raises MissingExtraError and DeviceError, as `require_cuda` does."""
    found = require_onnxruntime(backend, request)
    require_cuda()
    return f"{found} for CUDA {_built_for()} on {_device_name()}"


def open_session(backend: Backend, request: SessionRequest) -> Session:
    """See sessions.backends.open_session."""
    return OnnxRuntimeCudaSession(request)


class OnnxRuntimeCudaSession:
    """A plan's stages on ONNX Runtime's CUDA provider, one call of a fixed batch each, with buffers bound once.

    recorded: for each stage, whether its calls replay a CUDA graph.
    """

    backend: Backend = "onnxruntime-cuda"
    engine_sha256, threads = None, 0

    def __init__(self, request: SessionRequest) -> None:
        require_cuda()
        self.precision, self.batch = request.precision, request.batch
        recipe = make_recipe(request.bundle, request.plan, request.precision)
        bound = [_THREAD.submit(_bind_stage, request, recipe, stage).result() for stage in list_stages(request.plan)]
        self.recorded = tuple(stage.recorded for stage in bound)
        self._stages = [FixedCalls(stage.run, stage.inputs, self.batch) for stage in bound]

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        """See Session.run."""
        return _THREAD.submit(self._stages[stage].run, feeds).result()


def _bind_stage(request: SessionRequest, recipe: Recipe, stage: Stage) -> "_BoundStage":
    """A stage that is recorded; where ONNX Runtime cannot do that, as it is: a loop, or a version before 1.21."""
    half = HALF if request.precision == "fp16" else {}

    def bind(recorded: bool) -> _BoundStage:
        options, rewrite = ({**OPTIONS, **half, **RECORDED}, as_layer_norms) if recorded else (OPTIONS, None)
        path, rows = request.bundle.path, request.batch
        settings = ProviderSettings(PROVIDER, options, rows=rows)
        session = load_stage(path, recipe, stage, settings, rewrite)
        return _BoundStage(session, rows, recorded)

    with _nothing_logged():
        try:
            return bind(recorded=True)
        except EngineMemoryError:
            raise
        except Exception:  # of one of three classes, when it is loaded or when it first runs
            return bind(recorded=False)


class _BoundStage:
    """A loaded stage with its buffers in GPU memory, which has run once."""

    def __init__(self, session: Any, batch: int, recorded: bool) -> None:
        self._session, self._binding, self.recorded = session, session.io_binding(), recorded
        self.inputs, self._outputs = (
            {node.name: _allocate((batch, *node.shape[1:]), _TYPES[node.type]) for node in nodes}
            for nodes in (session.get_inputs(), session.get_outputs())
        )
        for name, value in self.inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self.run({})

    def run(self, feeds: StageTensors) -> StageTensors:
        """Copies of the outputs for feeds of one batch."""
        with explain_failed_call(LIBRARY):
            for name, value in feeds.items():
                self.inputs[name].update_inplace(np.ascontiguousarray(value))
            self._session.run_with_iobinding(self._binding)
            return {name: np.array(value.numpy()) for name, value in self._outputs.items()}


def require_cuda() -> None:
    """Run a convolution on the GPU, once per process. Raises MissingExtraError (no such provider) and DeviceError."""
    version = onnxruntime.__version__
    if PROVIDER not in onnxruntime.get_available_providers():
        raise MissingExtraError(
            f"onnxruntime {version} has no CUDA provider: pip install 'diffood[gpu]'; then, since two packages share a "
            "folder, pip uninstall -y onnxruntime, and pip install --force-reinstall --no-deps onnxruntime-gpu."
        )
    _run_probe(PROVIDER, PROBE)


@functools.cache  # of successes: an exception is not kept
def _run_probe(provider: str, probe: bytes) -> None:
    version, said = onnxruntime.__version__, io.StringIO()
    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on; Jetsons may have older builds, and system libraries
        with contextlib.redirect_stdout(said):
            onnxruntime.preload_dlls()  # CUDA and cuDNN as pip installs them; it prints what it misses
    try:
        with _nothing_logged():
            session = start_session(probe, ProviderSettings(provider, OPTIONS, threads=1))
            taken = session.get_providers()[0] == provider
            found = session.run(None, {"x": PROBE_INPUT})[0].item() if taken else None
    except Exception as error:  # a driver without a usable GPU; the class of the exception depends on the version
        reason = one_line(error)
        raise DeviceError(f"onnxruntime {version} cannot use CUDA: {_why_not(said.getvalue())} ({reason})") from None
    if found is None:
        raise DeviceError(f"onnxruntime {version} cannot use CUDA: {_why_not(said.getvalue())}")
    wanted = float((PROBE_INPUT**2).sum())
    if found != wanted:
        raise DeviceError(
            f"onnxruntime {version} computes a convolution wrongly on {_device_name()}: {found:g}, not {wanted:g}. "
            "Install another version of it, of cuDNN or of the driver."
        )


@contextlib.contextmanager
def _nothing_logged() -> Iterator[None]:
    """Without what ONNX Runtime logs while it tries kernels: what matters is raised."""
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)


def _why_not(said: str) -> str:
    """What is missing, if it can be found out: the GPU, its driver, or a library."""
    try:
        device = find_device(extra="gpu")
    except DeviceError as error:
        return str(error)
    except MissingExtraError:
        device = None
    if device and (mismatch := explain_cuda_version(_built_for(), device)):
        return mismatch
    for line in said.splitlines():
        if line.startswith("Failed to load "):
            return f"{line.rpartition('/')[2].partition(': ')[2]}. Install CUDA and cuDNN: pip install 'diffood[gpu]'."
    return (
        f"it does not work with {device or 'this machine'}. Install cuDNN, a newer driver, or another onnxruntime-gpu."
    )


def explain_cuda_version(built_for: str, device: Device) -> str:
    """Why an onnxruntime-gpu that was built for this CUDA, e.g. "13.0", cannot run with the driver; "" if it may."""
    major = built_for.partition(".")[0]
    if not major.isdecimal() or int(major) <= int(device.driver.partition(".")[0]):
        return ""
    older = f", or pip install '{LAST_FOR_CUDA_12}', which is built for CUDA 12" if major == "13" else ""
    return (
        f"it is built for CUDA {built_for}, and the driver of {device.name} runs CUDA {device.driver} at most. "
        f"Install a newer driver{older}."
    )


def _built_for() -> str:
    """The CUDA version that onnxruntime says it was built for; "unknown" before 1.21 and where it has none."""
    return str(getattr(onnxruntime, "cuda_version", "") or "unknown")


def _device_name() -> str:
    try:
        return str(find_device(extra="gpu"))
    except (DeviceError, MissingExtraError):  # CUDA works: without cuda-bindings its name is not known
        return "a GPU"


def _allocate(shape: tuple[int, ...], kind: Any) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), kind, DEVICE, 0)
