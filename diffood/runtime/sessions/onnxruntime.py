"""The CPU session: ONNX Runtime on the bundle's graphs, lanes held in numpy arrays. Thin."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnxruntime

from diffood.errors import BundleError, DeviceError, EngineMemoryError
from diffood.runtime.bundle import Bundle, Precision, Role
from diffood.runtime.sessions import Array, Backend, Classified, StepInputs
from diffood.runtime.sessions.graphs import autoencoder_roles, read_graph, require_tensors, step_role
from diffood.runtime.sessions.host import combine_registers, run_padded

PROVIDER = "CPUExecutionProvider"

# Words of its arena, of C++, and of CUDA.
OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "Available memory of", "out of memory")


class OnnxRuntimeSession:
    """A plan's graphs on ONNX Runtime's CPU provider, for a fixed batch and a number of threads (0: all cores)."""

    backend: Backend = "onnxruntime-cpu"
    engine_sha256 = None

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: Precision = "fp32",
        guided: bool,
        registers: int,
        batch: int,
        threads: int = 0,
    ) -> None:
        self.precision, self.batch = precision, batch
        self._classify = load_graph(bundle, "classify", precision, PROVIDER, {}, threads)
        self._step = load_graph(bundle, step_role(guided=guided), precision, PROVIDER, {}, threads)
        self._step_inputs = {node.name for node in self._step.get_inputs()}
        self._autoencoder = {
            role: load_graph(bundle, role, precision, PROVIDER, {}, threads) for role in autoencoder_roles(bundle)
        }
        self._x: Array = np.zeros((batch, *bundle.manifest.lane_shape), np.float32)
        self._registers: Array = np.zeros((registers, *self._x.shape), np.float32)

    def classify(self, x: Array) -> Classified:
        """See Session.classify."""
        outputs = ["logits", "features"]
        return Classified(*run_padded(x, self.batch, lambda rows: run_graph(self._classify, outputs, {"x": rows})))

    def encode(self, x: Array) -> Array:
        """See Session.encode."""
        return run_padded(x, self.batch, lambda rows: run_graph(self._autoencoder["encode"], ["z"], {"x": rows}))[0]

    def decode(self, z: Array) -> Array:
        """See Session.decode."""
        return run_padded(z, self.batch, lambda rows: run_graph(self._autoencoder["decode"], ["x"], {"z": rows}))[0]

    def put(self, lane: int, x: Array) -> None:
        """See Session.put."""
        self._x[lane] = x

    def step(self, inputs: StepInputs) -> None:
        """See Session.step."""
        feeds = {
            "x": self._x,
            "time": inputs.time,
            "label": inputs.label,
            "guidance": inputs.guidance,
            "coefficients": inputs.coefficients,
        }
        wanted = ["x_next", "epsilon"] if len(self._registers) else ["x_next"]
        out = run_graph(self._step, wanted, {name: feeds[name] for name in self._step_inputs})
        self._x = out[0]
        if len(self._registers):
            combine_registers(self._x, self._registers, inputs, out[1])

    def take(self, lane: int) -> Array:
        """See Session.take."""
        return np.array(self._x[lane])


def run_graph(session: Any, outputs: list[str], feeds: Mapping[str, Any]) -> Any:
    """The outputs of one call. EngineMemoryError where ONNX Runtime finds no memory for it."""
    with naming_lack_of_memory():
        return session.run(outputs, feeds)


@contextlib.contextmanager
def naming_lack_of_memory() -> Iterator[None]:
    """Have ONNX Runtime's errors about memory, which have no class of their own, as EngineMemoryError."""
    try:
        yield
    except Exception as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise EngineMemoryError(
            "The engine found no memory for a call: use a smaller --batch, or close other programs. ONNX Runtime "
            f"says: {' '.join(str(error).split())[-200:]}"
        ) from None


def load_graph(
    bundle: Bundle,
    role: Role,
    precision: Precision,
    provider: str,
    options: Mapping[str, str],
    threads: int = 0,
) -> Any:
    """An onnxruntime.InferenceSession of one graph on one provider; what it takes and gives is as it should be.

    Raises BundleError, and DeviceError where ONNX Runtime took another provider than it was told, as it does silently.
    """
    where, model = read_graph(bundle, role, precision)
    try:
        session = start(model, provider, options, threads)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {where}: {reason}. "
            "Export the bundle again, or install a newer onnxruntime."
        ) from None
    if session.get_providers()[0] != provider:
        raise DeviceError(
            f"ONNX Runtime {onnxruntime.__version__} fell back to {session.get_providers()[0]}, {provider} cannot be "
            "used here: `diffood doctor` says why. Choose another --backend, or auto."
        )
    inputs, outputs = (
        {node.name: (node.type, *node.shape) for node in nodes}
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    require_tensors(where, bundle, role, inputs, outputs)
    return session


def start(model: bytes, provider: str, options: Mapping[str, str], threads: int) -> Any:
    """An onnxruntime.InferenceSession as ONNX Runtime gives it; its provider may be another one."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4  # errors come as exceptions; warnings about the machine are doctor's to give
    settings.add_session_config_entry("session.load_model_format", "ONNX")  # else the bytes choose the parser
    # Idle threads of a pool that spin take the cores from the decoders, from the other graph's pool, from other work.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, settings, providers=[(provider, dict(options))], enable_fallback=0)
    session.disable_fallback()  # while it runs; enable_fallback=0: while it is made, though not from CUDA to the CPU
    return session
