"""The CPU session: ONNX Runtime on the bundle's graphs, lanes held in numpy arrays. Thin."""

from typing import Any

import numpy as np
import onnxruntime

from diffood.errors import BundleError
from diffood.runtime.bundle import Bundle, Role
from diffood.runtime.schedule import NO_REGISTER
from diffood.runtime.sessions import Array, Classified, StepInputs
from diffood.runtime.sessions.external_data import has_external_data

PROVIDER = "CPUExecutionProvider"

Tensor = tuple[str | int | None, ...]  # type, then dimensions; a name or None for a free one

_FLOAT, _BATCH = "tensor(float)", "batch"


class OnnxRuntimeSession:
    """Both graphs on ONNX Runtime's CPU provider, for a fixed batch and a number of threads (0: all cores)."""

    backend = "onnxruntime-cpu"
    precision = "fp32"

    def __init__(self, bundle: Bundle, *, guided: bool, registers: int, batch: int, threads: int = 0) -> None:
        self.batch = batch
        self._classify = _load(bundle, "classify", threads)
        self._step = _load(bundle, "step_guided" if guided else "step_plain", threads)
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


def _load(bundle: Bundle, role: Role, threads: int) -> Any:
    file = bundle.graph(role).file
    where, model = bundle.path / file, bundle.read(file)
    try:
        external = has_external_data(model)
    except ValueError as error:
        raise BundleError(f"{where} is not an ONNX graph ({error}); export the bundle again.") from None
    if external:
        raise BundleError(f"{where} keeps weights in other files, which nothing proves; export the bundle again.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors come as exceptions; warnings about the machine are doctor's to give
    options.add_session_config_entry("session.load_model_format", "ONNX")  # else the bytes choose the parser
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {where}: {reason}. "
            "Export the bundle again, or install a newer onnxruntime."
        ) from None
    if session.get_providers() != [PROVIDER]:
        raise BundleError(f"ONNX Runtime chose {session.get_providers()} instead of {PROVIDER}; reinstall onnxruntime.")
    inputs, outputs = _signature(bundle, role)
    for kind, wanted, nodes in ("inputs", inputs, session.get_inputs()), ("outputs", outputs, session.get_outputs()):
        found = {node.name: (node.type, *node.shape) for node in nodes}
        if found.keys() != wanted.keys() or not all(_fits(found[name], wanted[name]) for name in wanted):
            raise BundleError(
                f"{where} is not a {role} graph: its {kind} are {_words(found)}, where {_words(wanted)} belong. "
                "Export the bundle again."
            )
    return session


def _signature(bundle: Bundle, role: Role) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and outputs the loop relies on: type, then dimensions."""
    manifest = bundle.manifest
    image = (_FLOAT, _BATCH, manifest.image.channels, manifest.image.height, manifest.image.width)
    if role == "classify":
        classes, features = len(manifest.class_names), manifest.feature_count
        return {"x": image}, {"logits": (_FLOAT, _BATCH, classes), "features": (_FLOAT, _BATCH, features)}
    inputs: dict[str, Tensor] = {"x": image, "time": (_FLOAT, _BATCH), "coefficients": (_FLOAT, _BATCH, 4)}
    if manifest.unet.labels != "none":
        inputs["label"] = ("tensor(int64)", _BATCH)
    if role == "step_guided":
        inputs["guidance"] = (_FLOAT, _BATCH)
    return inputs, {"x_next": image, "epsilon": image}


def _fits(found: Tensor, wanted: Tensor) -> bool:
    """Same type and rank, a free batch, and no dimension fixed to another size."""
    return (
        len(found) == len(wanted)
        and found[0] == wanted[0]
        and not isinstance(found[1], int)
        and all(size == right or not isinstance(size, int) for size, right in zip(found[2:], wanted[2:], strict=True))
    )


def _words(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {kind}{list(shape)}" for name, (kind, *shape) in sorted(tensors.items()))
