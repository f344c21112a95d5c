"""The CUDA session: ONNX Runtime's CUDA provider on the bundle's graphs, with the lanes in GPU memory.

Written without a GPU: tested are the refusal without one, and the same code with its buffers on the CPU.
"""

import contextlib
import functools
import io
from typing import Any

import numpy as np
import onnxruntime

from diffood.errors import DeviceError, MissingExtraError
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision, Role
from diffood.runtime.bundle.graphs import autoencoder_roles, step_role
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import Classified, Session, StepInputs
from diffood.runtime.sessions.cuda import Device, find_device
from diffood.runtime.sessions.graphs import INT64, expected_tensors
from diffood.runtime.sessions.host import combine_registers, run_padded
from diffood.runtime.sessions.onnxruntime import LIBRARY, load_graph, start_session
from diffood.runtime.sessions.onnxruntime import require_backend as require_onnxruntime
from diffood.runtime.sessions.out_of_memory import explain_lack_of_memory

PROVIDER, DEVICE = "CUDAExecutionProvider", "cuda"
OPTIONS = {
    "device_id": "0",
    "use_tf32": "0",  # FP32 is what the others are measured against: all its bits
    "cudnn_conv_algo_search": "HEURISTIC",  # the default measures, and may choose another kernel on the next start
}
# An ONNX file, opset 13: y = Conv(x, x) of x [1, 1, 3, 3], the sum of squares. A convolution needs cuDNN, which newer
# versions load only then.
PROBE = bytes.fromhex(
    "08083a4e0a0f0a01780a01781201792204436f6e761201705a1b0a017812160a14080112"
    "100a0208010a0208010a0208030a020803621b0a017912160a14080112100a0208010a02"
    "08010a0208010a02080142040a00100d"
)
PROBE_INPUT = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
LAST_FOR_CUDA_12 = "onnxruntime-gpu[cuda,cudnn]<1.27"  # from 1.27 on, PyPI's wheels are built for CUDA 13
_FATAL, _WARNING = 4, 2  # severities of ONNX Runtime's default logger; the second is what it starts with


def require_backend(backend: Backend, bundle: Bundle | None, precision: Precision, batch: int) -> str:
    """What this backend runs on. Raises MissingExtraError and DeviceError, as `require_cuda` does."""
    found = require_onnxruntime(backend, bundle, precision, batch)
    require_cuda()
    return f"{found} for CUDA {_built_for()} on {_device_name()}"


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
    return OnnxRuntimeCudaSession(bundle, precision=precision, guided=guided, registers=registers, batch=batch)


class OnnxRuntimeCudaSession:
    """A plan's graphs on ONNX Runtime's CUDA provider, for a fixed batch.

    Buffers are bound once, and x alternates between two of them. ONNX Runtime only copies whole buffers: all lanes are
    uploaded before a step if one was put, and downloaded after it if one is taken. The registers of multistep samplers
    are combined on the host, so such a step downloads and uploads all lanes.
    """

    backend: Backend = "onnxruntime-cuda"
    engine_sha256, threads = None, 0

    def __init__(
        self, bundle: Bundle, *, precision: Precision = "fp32", guided: bool, registers: int, batch: int
    ) -> None:
        require_cuda()
        self.precision, self.batch = precision, batch
        self._maps = {
            name: _BoundMap(bundle, name, precision, batch) for name in ("classify", *autoencoder_roles(bundle))
        }
        shape = (batch, *bundle.manifest.lane_shape)
        self._lanes: Array = np.zeros(shape, np.float32)
        self._host_is_old, self._device_is_old = False, True
        self._registers: Array = np.zeros((registers, *shape), np.float32)
        if bundle.manifest.unet is None:  # no plan has steps then
            return
        role = step_role(guided=guided)
        self._step = load_graph(bundle, role, precision, PROVIDER, OPTIONS)
        x = [_allocate(shape), _allocate(shape)]
        self._epsilon = _allocate(shape)
        self._rows = {
            name: _allocate((batch, *rest), np.int64 if kind == INT64 else np.float32)
            for name, (kind, _, *rest) in expected_tensors(bundle, role)[0].items()
            if name != "x"
        }
        self._bindings = [
            _bind(self._step, {"x": x[here], **self._rows}, {"x_next": x[there], "epsilon": self._epsilon})
            for here, there in ((0, 1), (1, 0))
        ]
        self._x, self._current = x, 0

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
        self._download()
        self._lanes[lane] = x
        self._device_is_old = True

    def step(self, inputs: StepInputs) -> None:
        """See Session.step."""
        with explain_lack_of_memory(LIBRARY):
            if self._device_is_old:
                self._x[self._current].update_inplace(self._lanes)
            for name, rows in self._rows.items():
                rows.update_inplace(getattr(inputs, name))
            self._step.run_with_iobinding(self._bindings[self._current])
        self._current = 1 - self._current
        self._host_is_old, self._device_is_old = True, False
        if len(self._registers):
            self._download()
            combine_registers(self._lanes, self._registers, inputs, self._epsilon.numpy())
            self._device_is_old = True

    def take(self, lane: int) -> Array:
        """See Session.take."""
        self._download()
        return np.array(self._lanes[lane])

    def synchronize(self) -> None:
        """See Session.synchronize."""  # ONNX Runtime waits for the stream at the end of every run

    def _download(self) -> None:
        if self._host_is_old:
            with explain_lack_of_memory(LIBRARY):
                self._lanes[...] = self._x[self._current].numpy()
            self._host_is_old = False


class _BoundMap:
    """A stateless graph of one input, whose buffers are bound once."""

    def __init__(self, bundle: Bundle, role: Role, precision: Precision, batch: int) -> None:
        self._session = load_graph(bundle, role, precision, PROVIDER, OPTIONS)
        inputs, outputs = (
            {name: _allocate((batch, *rest)) for name, (_, _, *rest) in tensors.items()}
            for tensors in expected_tensors(bundle, role)
        )
        (self._rows,), self._results = inputs.values(), tuple(outputs.values())
        self._binding = _bind(self._session, inputs, outputs)

    def run(self, rows: Array) -> list[Array]:
        """Copies of the outputs for rows [B, C, H, W]."""
        with explain_lack_of_memory(LIBRARY):
            self._rows.update_inplace(rows)
            self._session.run_with_iobinding(self._binding)
            return [np.array(result.numpy()) for result in self._results]


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
    onnxruntime.set_default_logger_severity(_FATAL)  # what it would log is in our message
    try:
        session = start_session(probe, provider, OPTIONS, threads=1)
        taken = session.get_providers()[0] == provider
        found = session.run(None, {"x": PROBE_INPUT})[0].item() if taken else None
    except Exception as error:  # a driver without a usable GPU; the class of the exception depends on the version
        reason = " ".join(str(error).split())
        raise DeviceError(f"onnxruntime {version} cannot use CUDA: {_why_not(said.getvalue())} ({reason})") from None
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
    if found is None:
        raise DeviceError(f"onnxruntime {version} cannot use CUDA: {_why_not(said.getvalue())}")
    wanted = float((PROBE_INPUT**2).sum())
    if found != wanted:
        raise DeviceError(
            f"onnxruntime {version} computes a convolution wrongly on {_device_name()}: {found:g}, not {wanted:g}. "
            "Install another version of it, of cuDNN or of the driver."
        )


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


def _allocate(shape: tuple[Any, ...], kind: type[np.generic] = np.float32) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), kind, DEVICE, 0)


def _bind(session: Any, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding
