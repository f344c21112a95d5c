"""The CPU session: ONNX Runtime on the bundle's graphs, lanes held in numpy arrays. Thin."""

from typing import Any

import numpy as np
import onnxruntime

from diffood.errors import BundleError
from diffood.runtime.bundle import Bundle
from diffood.runtime.schedule import NO_REGISTER
from diffood.runtime.sessions import Array, Classified, StepInputs

PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeSession:
    """Both graphs on ONNX Runtime's CPU provider, for a fixed batch and a number of threads (0: all cores)."""

    backend = "onnxruntime-cpu"
    precision = "fp32"

    def __init__(self, bundle: Bundle, *, guided: bool, registers: int, batch: int, threads: int = 0) -> None:
        self.batch = batch
        self._classify = _load(bundle, bundle.graph("classify").file, threads)
        self._step = _load(bundle, bundle.graph("step_guided" if guided else "step_plain").file, threads)
        self._step_inputs = {node.name for node in self._step.get_inputs()}
        image = bundle.manifest.image
        self._x: Array = np.zeros((batch, image.channels, image.height, image.width), np.float32)
        self._registers: Array = np.zeros((registers, *self._x.shape), np.float32)

    def classify(self, x: Array) -> Classified:
        """See Session.classify."""
        logits, features = [], []
        for start in range(0, len(x), self.batch):
            rows = x[start : start + self.batch]
            padded = np.zeros(self._x.shape, np.float32)
            padded[: len(rows)] = rows
            out = self._classify.run(["logits", "features"], {"x": padded})
            logits.append(out[0][: len(rows)])
            features.append(out[1][: len(rows)])
        return Classified(np.concatenate(logits), np.concatenate(features))

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
        out = self._step.run(wanted, {name: feeds[name] for name in self._step_inputs})
        self._x = out[0]
        if len(self._registers):
            self._combine(inputs, out[1])

    def _combine(self, inputs: StepInputs, epsilon: Array) -> None:
        """Add the registers' share of a multistep update, then keep this step's epsilon where the row says so."""
        for register, weight in zip(self._registers, inputs.weights.T, strict=True):
            self._x += weight[:, None, None, None] * register
        for lane, register in enumerate(inputs.store):
            if register != NO_REGISTER:
                self._registers[register, lane] = epsilon[lane]

    def take(self, lane: int) -> Array:
        """See Session.take."""
        return np.array(self._x[lane])


def _load(bundle: Bundle, file: str, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # warnings about the machine are doctor's to give
    try:
        session = onnxruntime.InferenceSession(bundle.read(file), options, providers=[PROVIDER])
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {bundle.path / file}: {error}. "
            "Export the bundle again, or install a newer onnxruntime."
        ) from None
    if session.get_providers() != [PROVIDER]:
        raise BundleError(f"ONNX Runtime chose {session.get_providers()} instead of {PROVIDER}; reinstall onnxruntime.")
    return session
