"""A model repository for NVIDIA Triton Inference Server from a calibrated bundle, and what goes over its wire.

The model itself, which the server's Python backend runs, is `triton_model`.
"""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import (
    CALIBRATION,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PARITY,
    Bundle,
    kept_folder,
    open_bundle,
)
from diffood.runtime.bundle.calibration import MAX_CALIBRATION_BYTES, load_calibrated_fusion, load_calibration
from diffood.runtime.bundle.engines import ENGINES, RECORD, list_engines, read_plan
from diffood.runtime.bundle.files import read_regular, record_bytes
from diffood.runtime.bundle.parity import MAX_PARITY_BYTES, load_parity
from diffood.runtime.detector import DEFAULT_BATCH, require_size
from diffood.runtime.images.decode import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from diffood.runtime.records import Record, explain_invalid
from diffood.runtime.sessions.choice import BackendChoice, PrecisionChoice
from diffood.serving.rows.row import COLUMNS, Row, Value

DEFAULT_NAME = "diffood"
DEFAULT_QUEUE_DELAY = 5000  # microseconds: less than the quickest pass, of the embedded models in one lane, takes
INPUT = "image"
VERSION = "1"  # Triton's name for a model's first version
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
BUNDLE_FOLDER = "bundle"

# The columns of a row but for its id, which is the client's: (Triton's type, numpy's, what stands for None).
TYPES: dict[str, tuple[str, Any, Value]] = {
    "text": ("TYPE_STRING", np.object_, ""),
    "real": ("TYPE_FP64", np.float64, math.nan),
    "whole": ("TYPE_INT64", np.int64, -1),
    "truth": ("TYPE_BOOL", np.bool_, True),  # is_ood of a refused image: it was never shown to be in-distribution
}
OUTPUTS = {name: kind for name, kind in COLUMNS.items() if name != "id"}

MODEL = '''"""The verdicts of the bundle beside this file; written by `diffood export-triton`."""

from diffood.serving.triton.model import TritonPythonModel  # noqa: F401 - what Triton looks for here
'''


class Settings(Record):
    """How the server runs the bundle; written into config.pbtxt and read from there. batch: rows of an engine call."""

    backend: BackendChoice = "auto"
    precision: PrecisionChoice | None = None
    batch: int = DEFAULT_BATCH
    threads: int = 0
    max_bytes: Annotated[int, Field(ge=1)] = DEFAULT_MAX_BYTES
    max_pixels: Annotated[int, Field(ge=1)] = DEFAULT_MAX_PIXELS

    @property
    def parameters(self) -> dict[str, str]:
        """What config.pbtxt holds as parameters, all text; batch is its max_batch_size."""
        return {name: str(value) for name, value in self if name != "batch" and value is not None}

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Settings":
        """Read the configuration that Triton hands to a model. UsageError where it was edited to what cannot be."""
        parameters = config.get("parameters", {}).items()
        given = {name: entry.get("string_value") for name, entry in parameters if not name.isupper()}  # those: Triton's
        with explain_invalid("config.pbtxt", "export it again", UsageError):
            return cls.model_validate({**given, "batch": config["max_batch_size"]})


def write_repository(
    path: Path,
    output: Path,
    settings: Settings,
    *,
    name: str = DEFAULT_NAME,
    queue_delay: int = DEFAULT_QUEUE_DELAY,
) -> Path:
    """Write a model repository with one model, which holds a copy of the bundle at `path`; all of it or nothing.

    Copied is what serving needs: not the tuning, the calibrations before, nor engines the backend does not run. Every
    byte is hashed on its way, as when the bundle is opened. Returns the model's folder. Raises UsageError (output is
    there already, a name that is none, an impossible size), BundleError (a damaged bundle, a precision it does not
    hold) and CalibrationError (not calibrated).
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a model's name: use letters, digits and _ . - after the first of them.")
    if queue_delay < 0:
        raise UsageError(f"A queue delay of {queue_delay} microseconds is not possible: choose 0 or more.")
    require_size(settings.batch, settings.threads)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(
            f"{output} exists and is not an empty folder; choose another --output. Triton takes several repositories, "
            "and a model's folder can be moved from one into another."
        )
    bundle = open_bundle(path)
    if settings.precision is not None and settings.precision != "auto":
        bundle.graph("classify", settings.precision)
    files = dict(_files_to_serve(bundle, settings.backend))
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        version = partial / name / VERSION
        version.mkdir(parents=True)
        (partial / name / "config.pbtxt").write_text(make_config(name, settings, queue_delay))
        (version / "model.py").write_text(MODEL)
        for file, data in files.items():
            target = version / BUNDLE_FOLDER / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        for file in bundle.manifest.files:
            bundle.copy(file, version / BUNDLE_FOLDER / file)
        partial.chmod(0o755)  # a server runs as another user
        partial.replace(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return output / name


def _files_to_serve(bundle: Bundle, backend: BackendChoice) -> Iterator[tuple[str, bytes]]:
    """Names inside the bundle's folder that the manifest does not list, and bytes that were hashed or validated."""
    calibration = load_calibration(bundle)
    load_calibrated_fusion(bundle, calibration)  # hashes the bank
    yield MANIFEST, read_regular(bundle.path, MANIFEST, MAX_MANIFEST_BYTES)
    yield CALIBRATION, read_regular(bundle.path, CALIBRATION, MAX_CALIBRATION_BYTES)
    if load_parity(bundle).records:
        yield PARITY, read_regular(bundle.path, PARITY, MAX_PARITY_BYTES)
    if calibration.fusion and (bank := calibration.fusion.bank):
        folder = kept_folder(bundle)
        yield f"{folder.name}/{bank.file}", read_regular(folder, bank.file, bank.size)
    for engine in list_engines(bundle):
        if backend in ("auto", engine.record.library):
            place = f"{ENGINES}/{engine.path.name}"
            yield f"{place}/{RECORD}", record_bytes(engine.record)
            for plan in engine.record.plans:
                yield f"{place}/{plan.file}", read_plan(engine, plan.role)


def make_config(name: str, settings: Settings, queue_delay: int) -> str:
    """The text of config.pbtxt. queue_delay: microseconds."""
    kinds = {"auto": "kind: KIND_MODEL", "onnxruntime-cpu": "kind: KIND_CPU"}  # KIND_MODEL: the model chooses
    kind = kinds.get(settings.backend, "kind: KIND_GPU gpus: [ 0 ]")  # sessions use the first GPU there is
    outputs = ",\n".join(
        f'  {{ name: "{column}" data_type: {TYPES[what][0]} dims: [ 1 ] }}' for column, what in OUTPUTS.items()
    )
    parameters = ",\n".join(
        f"  {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(value)} }} }}"
        for key, value in settings.parameters.items()
    )
    return f"""# Written by `diffood export-triton`; the model reads max_batch_size and the parameters from here.
name: "{name}"
backend: "python"
max_batch_size: {settings.batch}
input [
  {{ name: "{INPUT}" data_type: TYPE_STRING dims: [ 1 ] }}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: {queue_delay} }}
instance_group [ {{ count: 1 {kind} }} ]
parameters [
{parameters}
]
"""


def make_tensors(rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
    """The outputs of N rows by name, each [N, 1]; text as UTF-8 bytes, None as `TYPES` says."""
    table = [row.values() for row in rows]
    return {
        name: np.array([_on_the_wire(values[name], kind) for values in table], TYPES[kind][1]).reshape(-1, 1)
        for name, kind in OUTPUTS.items()
    }


def _on_the_wire(value: Value, kind: str) -> Value | bytes:
    value = TYPES[kind][2] if value is None else value
    return cast(str, value).encode() if kind == "text" else value
