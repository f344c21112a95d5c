"""Writes a model for Triton's own backends, ONNX Runtime's and TensorRT's: the bundle's detector file and its config.

Pixels in, verdicts out. The server needs nothing of diffood, and no Python.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import UsageError
from diffood.runtime.backends import AUTO, BackendChoice, define
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.detectors import CalibratedDetector, read_calibrated_detector
from diffood.runtime.detector import DEFAULT_BATCH, require_size
from diffood.runtime.onnx import messages
from diffood.runtime.printable import escape_json
from diffood.runtime.sessions.choice import PrecisionChoice
from diffood.serving.triton.repository import CONFIG, VERSION, ModelPlace

ONNX_FILE, ENGINE_FILE = "model.onnx", "model.plan"  # the names that the backends look for
TYPES = {
    messages.FLOAT: "TYPE_FP32",
    messages.UINT8: "TYPE_UINT8",
    messages.INT64: "TYPE_INT64",
    messages.BOOL: "TYPE_BOOL",
}


@dataclass(frozen=True)
class NativeSettings:
    """How the server runs the detector file.

    Attributes:
        backend: "auto": a GPU where the server has one. "tensorrt" without an engine: TensorRT within ONNX Runtime.
        precision: None: the calibrated one.
        batch: Most images per call.
        threads: Of each instance on a CPU; 0 for all cores.
        engine: A TensorRT engine that was built of the detector file, for Triton's TensorRT backend.
    """

    backend: BackendChoice = AUTO
    precision: PrecisionChoice | None = None
    batch: int = DEFAULT_BATCH
    threads: int = 0
    engine: Path | None = None


def write_native_model(path: Path, place: ModelPlace, settings: NativeSettings) -> Path:
    """Write a model that takes pixels; all of it or nothing.

    Args:
        path: The bundle.
        place: Where the model goes.
        settings: How the server runs it.

    Returns:
        The model's folder.

    Raises:
        UsageError: The output exists, the name is invalid, a size impossible, or the backend none of Triton's.
        BundleError: The bundle or its detector file is damaged, or lacks the precision.
        CalibrationError: The bundle is not calibrated, or not for the precision.
    """
    place.require_possible()
    require_size(settings.batch, settings.threads)
    _require_backend(settings)
    bundle = open_bundle(path)
    found = read_calibrated_detector(bundle, _choose_precision(bundle, settings.precision))
    with place.make() as folder:
        version = folder / VERSION
        version.mkdir()
        (folder / CONFIG).write_text(make_native_config(bundle, found, settings, place), "utf-8")
        if settings.engine is not None:
            shutil.copyfile(settings.engine, version / ENGINE_FILE)
        else:
            (version / ONNX_FILE).write_bytes(found.model)
            for file in found.entry.data:
                bundle.copy(file, version / file)
    return place.output / place.name


def _require_backend(settings: NativeSettings) -> None:
    if settings.backend == "tensorrt-rtx":
        raise UsageError("Triton has no backend for tensorrt-rtx: choose --backend tensorrt or onnxruntime-cuda.")
    if settings.engine is not None and settings.backend not in (AUTO, "tensorrt"):
        raise UsageError(f"--engine is for Triton's TensorRT backend: leave --backend {settings.backend} out.")
    if settings.engine is not None and not settings.engine.is_file():
        raise UsageError(f"--engine {settings.engine} is no file; build one of detector.onnx with trtexec.")


def _choose_precision(bundle: Bundle, precision: PrecisionChoice | None) -> Precision:
    if precision == "auto":
        raise UsageError(
            f"--precision auto is chosen where an engine runs, and Triton runs this one: name one of "
            f"{', '.join(bundle.precisions)}."
        )
    return precision or load_calibration(bundle).fingerprint.precision


def make_native_config(bundle: Bundle, found: CalibratedDetector, settings: NativeSettings, place: ModelPlace) -> str:
    """The text of config.pbtxt, with the inputs and outputs that the detector file has."""
    graph = messages.Model.FromString(found.model).graph
    parameters = {
        "class_names": escape_json(json.dumps(bundle.manifest.class_names, ensure_ascii=False)),
        "detector_sha256": found.entry.sha256,
        "guarantee": found.calibration.guarantee,
    }
    if settings.threads and settings.engine is None:
        parameters["intra_op_thread_count"] = str(settings.threads)
    kind = _kind(settings)
    inside = settings.backend == "tensorrt" and settings.engine is None
    return f"""# Written by `diffood export-triton` for the detector file of a calibrated bundle.
name: "{place.name}"
{'backend: "onnxruntime"' if settings.engine is None else 'platform: "tensorrt_plan"'}
max_batch_size: {settings.batch}
input [
{_tensors(graph.input)}
]
output [
{_tensors(graph.output)}
]
dynamic_batching {{ max_queue_delay_microseconds: {place.queue_delay} }}
instance_group [ {{ count: {place.instances} kind: {kind} }} ]
{_ACCELERATOR if inside else ""}parameters [
{_entries(parameters)}
]
"""


_ACCELERATOR = """optimization { execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt" } ] } }
"""


def _kind(settings: NativeSettings) -> str:
    if settings.backend == AUTO:
        return "KIND_AUTO" if settings.engine is None else "KIND_GPU"
    return "KIND_GPU" if define(settings.backend).gpu else "KIND_CPU"


def _tensors(values: "list[messages.ValueInfo]") -> str:
    """Inputs or outputs, without the dimension of the batch."""
    lines = []
    for value in values:
        of = value.type.tensor_type
        dims = [size.dim_value for size in of.shape.dim][1:]
        shape = f"dims: {dims}" if dims else "dims: [ 1 ] reshape: { shape: [ ] }"  # Triton allows no empty dims
        lines.append(f"  {{ name: {json.dumps(value.name)} data_type: {TYPES[of.elem_type]} {shape} }}")
    return ",\n".join(lines)


def _entries(parameters: dict[str, str]) -> str:
    return ",\n".join(
        f"  {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(value, ensure_ascii=False)} }} }}"
        for key, value in parameters.items()
    )
