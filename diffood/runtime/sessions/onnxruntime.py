"""The CPU session: ONNX Runtime on the bundle's graphs, with the lanes in numpy arrays."""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from diffood.errors import BundleError, DeviceError, EngineMemoryError, MissingExtraError
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision, Role
from diffood.runtime.bundle.graphs import autoencoder_roles, read_graph, step_role
from diffood.runtime.bundle.weights_file import Weight
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import Classified, Session, StepInputs
from diffood.runtime.sessions.cores import usable_cores
from diffood.runtime.sessions.graphs import require_tensors
from diffood.runtime.sessions.host import combine_registers
from diffood.runtime.sessions.out_of_memory import explain_lack_of_memory

LIBRARY, PROVIDER = "ONNX Runtime", "CPUExecutionProvider"
NONE: Mapping[str, Weight] = {}
FEWEST_CALLS = 16
"""Calls of a whole batch: of 2 rows each for the default 32. A guided step then costs 4 % more time per row than in
calls of 16 rows, and an image alone costs no more than two."""


def require_backend(backend: Backend, bundle: Bundle | None, precision: Precision, batch: int) -> str:
    """What this backend runs on. Raises MissingExtraError if the package is incomplete."""
    try:
        return f"onnxruntime {onnxruntime.__version__}"
    except AttributeError as error:  # what uninstalling one of its two packages leaves behind
        raise MissingExtraError(
            f"onnxruntime cannot be imported ({error}): pip install --force-reinstall onnxruntime."
        ) from None


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
    return OnnxRuntimeSession(
        bundle, precision=precision, guided=guided, registers=registers, batch=batch, threads=threads
    )


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
        self.threads = threads = threads or usable_cores()
        self._classify = SharedGraph(bundle, "classify", precision, batch, threads)
        self._step: SharedGraph | None = None
        if bundle.manifest.unet is not None:
            self._step = SharedGraph(bundle, step_role(guided=guided), precision, batch, threads)
        self._autoencoder = {
            role: SharedGraph(bundle, role, precision, batch, threads) for role in autoencoder_roles(bundle)
        }
        self._x: Array = np.zeros((batch, *bundle.manifest.lane_shape), np.float32)
        self._registers: Array = np.zeros((registers, *self._x.shape), np.float32)

    def classify(self, x: Array) -> Classified:
        """See Session.classify."""
        return Classified(*self._classify.run(["logits", "features"], {"x": x}))

    def encode(self, x: Array) -> Array:
        """See Session.encode."""
        return self._autoencoder["encode"].run(["z"], {"x": x})[0]

    def decode(self, z: Array) -> Array:
        """See Session.decode."""
        return self._autoencoder["decode"].run(["x"], {"z": z})[0]

    def put(self, lane: int, x: Array) -> None:
        """See Session.put."""
        self._x[lane] = x

    def step(self, inputs: StepInputs) -> None:
        """See Session.step."""
        assert self._step is not None  # without a UNet no plan has steps
        lanes = np.flatnonzero(inputs.moving)
        feeds: dict[str, npt.NDArray[Any]] = {
            "x": self._x[lanes],
            "time": inputs.time[lanes],
            "label": inputs.label[lanes],
            "guidance": inputs.guidance[lanes],
            "coefficients": inputs.coefficients[lanes],
        }
        wanted = ["x_next", "epsilon"] if len(self._registers) else ["x_next"]
        out = self._step.run(wanted, feeds)
        self._x[lanes] = out[0]
        if len(self._registers):
            epsilon = np.zeros_like(self._x)
            epsilon[lanes] = out[1]
            combine_registers(self._x, self._registers, inputs, epsilon)

    def take(self, lane: int) -> Array:
        """See Session.take."""
        return np.array(self._x[lane])

    def synchronize(self) -> None:
        """See Session.synchronize."""  # a call returns when it is done


def rows_per_call(role: Role, batch: int, threads: int) -> int:
    """Rows of every call of a graph, so that a batch is at least FEWEST_CALLS calls and one per thread."""
    calls = FEWEST_CALLS if role != "step_plain" else FEWEST_CALLS // 2  # its rows cost half of a guided step's
    return -(-batch // max(calls, threads if batch >= threads else 1))


class FixedCalls:
    """A loaded graph whose rows are computed by calls of a fixed size, divided among threads.

    The size is fixed since ONNX Runtime may round differently in calls of 1, 2 or 4 rows: so an image has the same
    score in any company. It is small so that few images cost little; the last call is filled up.
    """

    def __init__(self, session: Any, rows: int, threads: int) -> None:
        """Args: the session; rows of a call; threads that make calls of their own, the caller's among them."""
        self._session, self.rows, self._helpers = session, rows, threads - 1
        self._inputs = {node.name for node in session.get_inputs()}
        self._pool = ThreadPoolExecutor(self._helpers) if self._helpers else None

    def run(self, outputs: list[str], feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The outputs for any number of rows; feeds that the graph does not take are left out."""
        asked = {name: value for name, value in feeds.items() if name in self._inputs}
        count = len(next(iter(asked.values())))
        calls = max(1, -(-count // self.rows))  # one for no rows, which tells the shapes of outputs
        todo = deque(range(calls))
        found: list[Any] = [None] * calls

        def work() -> None:
            while True:
                try:
                    call = todo.popleft()
                except IndexError:
                    return
                rows = slice(call * self.rows, (call + 1) * self.rows)
                filled = {name: _filled_up(value[rows], self.rows) for name, value in asked.items()}
                found[call] = run_graph(self._session, outputs, filled)

        others = [self._pool.submit(work) for _ in range(min(self._helpers, calls - 1))] if self._pool else []
        try:
            work()
        finally:
            todo.clear()
            wait(others)  # also if the first failed: no call may run on after this returns
        for other in others:
            other.result()
        return [np.concatenate(values)[:count] for values in zip(*found, strict=True)]


class SharedGraph(FixedCalls):
    """One graph of a bundle, in fixed calls.

    Each thread makes calls of its own. Half of a step is small operations that ONNX Runtime does not divide among
    threads: two threads on one call are 1.4 times as fast as one, with a call each nearly twice (docs/parity.md). With
    more threads than the batch has rows, all threads work on one call.
    """

    def __init__(self, bundle: Bundle, role: Role, precision: Precision, batch: int, threads: int) -> None:
        own_calls = batch >= threads
        session = load_graph(bundle, role, precision, PROVIDER, {}, 1 if own_calls else threads)
        super().__init__(session, rows_per_call(role, batch, threads), threads if own_calls else 1)


def _filled_up(value: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Values [rows, ...] that begin with the given ones and end with zeros."""
    if len(value) == rows:
        return value
    return np.concatenate([value, np.zeros((rows - len(value), *value.shape[1:]), value.dtype)])


def run_graph(session: Any, outputs: list[str], feeds: Mapping[str, Any]) -> Any:
    """The outputs of one call. Raises EngineMemoryError if ONNX Runtime runs out of memory."""
    with explain_lack_of_memory(LIBRARY):
        return session.run(outputs, feeds)


def load_graph(
    bundle: Bundle,
    role: Role,
    precision: Precision,
    provider: str,
    options: Mapping[str, str],
    threads: int = 0,
) -> Any:
    """An onnxruntime.InferenceSession of one graph on one provider, with the expected inputs and outputs.

    Raises BundleError, EngineMemoryError, and DeviceError if ONNX Runtime silently chose another provider.
    """
    graph = read_graph(bundle, role, precision)
    where = graph.where
    try:
        with explain_lack_of_memory(LIBRARY):
            session = start_session(graph.model, provider, options, threads, graph.outside)
    except EngineMemoryError:
        raise
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


def start_session(
    model: bytes, provider: str, options: Mapping[str, str], threads: int, outside: Mapping[str, Weight] = NONE
) -> Any:
    """An onnxruntime.InferenceSession; ONNX Runtime may have chosen another provider."""
    settings = onnxruntime.SessionOptions()
    give_weights(settings, outside)
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4  # errors come as exceptions; `diffood doctor` warns about the machine
    settings.add_session_config_entry("session.load_model_format", "ONNX")  # otherwise the bytes choose the parser
    # Spinning idle threads of a pool take the cores from the decoders and from the other graph's pool.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, settings, providers=[(provider, dict(options))], enable_fallback=0)
    session.disable_fallback()  # while it runs; enable_fallback=0 covers its creation, but not CUDA to CPU
    return session


def give_weights(settings: Any, outside: Mapping[str, Weight]) -> None:
    """Give a session these weights by name from memory, where the model says that they are in a file.

    ONNX Runtime compares types and shapes, and copies them while it makes the session.
    """
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in outside.values()]
    settings.add_external_initializers(list(outside), values)
