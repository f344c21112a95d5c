"""The model for Triton's own backends as it is written: the calibrated detector file, and a config that says the same.

Whether Triton takes it: test_triton_server.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from outside_weights import move_outside
from triton_requests import FAST

from diffood.calibration.calibrate import calibrate_files
from diffood.errors import BundleError, CalibrationError, UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.serving.triton.native import NativeSettings, write_native_model
from diffood.serving.triton.repository import DEFAULT_NAME, ModelPlace

TRITONS = {"uint8": "TYPE_UINT8", "float": "TYPE_FP32", "bool": "TYPE_BOOL", "int64": "TYPE_INT64"}
TENSOR = re.compile(r'  \{ name: "(\w+)" data_type: (\w+) dims: \[([\d, ]+)\](?: reshape: \{ shape: \[ \] \})? \},?')


def calibrate(bundle: Bundle, folder: Path) -> Path:
    plan = bundle.plan("plain").changed({**FAST, "witnesses": ("jump", "msp")})
    detector = Detector.load(bundle, plan, batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(folder)]), 0.1, 0.95, "pac").save()
    return bundle.path


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle, clothes_folder: Path) -> Path:
    """A calibrated copy of the small bundle; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("triton") / "bundle"))
    return calibrate(open_bundle(path), clothes_folder)


def config_of(path: Path, output: Path, **changes: Any) -> str:
    place = {name: changes.pop(name) for name in ("name", "instances", "queue_delay") if name in changes}
    settings = NativeSettings(**{"batch": 8, **changes})
    return (write_native_model(path, ModelPlace(output, **place), settings) / "config.pbtxt").read_text("utf-8")


def test_the_repository_holds_the_detector_file(calibrated: Path, tmp_path: Path) -> None:
    model = write_native_model(calibrated, ModelPlace(tmp_path / "models"), NativeSettings())
    assert model == tmp_path / "models" / DEFAULT_NAME
    files = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert files == {"config.pbtxt", "1/model.onnx"}
    assert (model / "1" / "model.onnx").read_bytes() == (calibrated / "detector.onnx").read_bytes()
    assert (tmp_path / "models").stat().st_mode & 0o005 == 0o005  # a server runs as another user


def test_the_configuration_names_the_inputs_and_outputs_of_the_file(calibrated: Path, tmp_path: Path) -> None:
    config = config_of(calibrated, tmp_path / "models")
    graph = onnx.load(calibrated / "detector.onnx").graph
    expected = {}
    for value in (*graph.input, *graph.output):
        of = value.type.tensor_type
        dims = [size.dim_value for size in of.shape.dim]
        assert dims[0] == 0, "the batch is not free"
        kind = onnx.helper.tensor_dtype_to_np_dtype(of.elem_type).name.replace("float32", "float")
        expected[value.name] = (TRITONS[kind], dims[1:] or [1])
    found = {name: (kind, [int(size) for size in dims.split(",")]) for name, kind, dims in TENSOR.findall(config)}
    assert found == expected
    assert expected["image"] == ("TYPE_UINT8", [1, 28, 28])
    assert expected.keys() >= {"score", "p_value", "is_ood", "threshold", "predicted_class", "denoised", "heat_map"}
    assert config.index("input [") < config.index('"image"') < config.index("output [") < config.index('"score"')
    assert config.count("reshape: { shape: [ ] }") == sum(dims == [1] for _, dims in expected.values())


def test_the_configuration_says_how_the_model_runs(calibrated: Path, tmp_path: Path) -> None:
    engine = tmp_path / "built.plan"
    engine.write_bytes(b"an engine")
    accelerator = 'optimization { execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt" } ] } }'
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, 'backend: "onnxruntime"'),
        ({}, "max_batch_size: 8"),
        ({"batch": 64}, "max_batch_size: 64"),
        ({}, "instance_group [ { count: 1 kind: KIND_AUTO } ]"),
        ({"instances": 3}, "instance_group [ { count: 3 kind: KIND_AUTO } ]"),
        ({"backend": "onnxruntime-cpu"}, "instance_group [ { count: 1 kind: KIND_CPU } ]"),
        ({"backend": "onnxruntime-cuda"}, "instance_group [ { count: 1 kind: KIND_GPU } ]"),
        ({"backend": "tensorrt"}, "instance_group [ { count: 1 kind: KIND_GPU } ]"),
        ({"backend": "tensorrt"}, 'backend: "onnxruntime"'),
        ({"backend": "tensorrt"}, accelerator),
        ({"engine": engine}, 'platform: "tensorrt_plan"'),
        ({"engine": engine}, "instance_group [ { count: 1 kind: KIND_GPU } ]"),
        ({"threads": 3}, '  { key: "intra_op_thread_count" value: { string_value: "3" } }'),
        ({"queue_delay": 700}, "dynamic_batching { max_queue_delay_microseconds: 700 }"),
        ({"name": "clothes"}, 'name: "clothes"'),
    ]
    for number, (changes, line) in enumerate(cases):
        config = config_of(calibrated, tmp_path / str(number), **changes)
        assert line in config.splitlines(), (changes, config)
        assert (accelerator in config) == (changes == {"backend": "tensorrt"})


def test_an_engine_is_served_in_place_of_the_file(calibrated: Path, tmp_path: Path) -> None:
    (tmp_path / "built").write_bytes(b"an engine")
    settings = NativeSettings(engine=tmp_path / "built")
    model = write_native_model(calibrated, ModelPlace(tmp_path / "models"), settings)
    assert [path.name for path in (model / "1").iterdir()] == ["model.plan"]
    assert (model / "1" / "model.plan").read_bytes() == b"an engine"


def test_weights_in_a_file_of_their_own_go_along(small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path) -> None:
    data = move_outside(small_bundle_copy, "step_plain")
    path = calibrate(open_bundle(small_bundle_copy), clothes_folder)
    model = write_native_model(path, ModelPlace(tmp_path / "models"), NativeSettings())
    assert {file.name for file in (model / "1").iterdir()} == {"model.onnx", data}
    assert (model / "1" / data).read_bytes() == (path / data).read_bytes()
    onnx.load(model / "1" / "model.onnx")  # which reads them from there


def test_what_cannot_be_served_is_refused(calibrated: Path, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.touch()
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"batch": 0}, UsageError, "batch of 0 images"),
        ({"threads": -1}, UsageError, "-1 threads"),
        ({"queue_delay": -1}, UsageError, "delay of -1"),
        ({"instances": 0}, UsageError, "0 instances are not possible"),
        ({"name": "../up"}, UsageError, "cannot be a model's name"),
        ({"precision": "int8"}, BundleError, "no int8 graphs"),
        ({"precision": "auto"}, UsageError, "--precision auto is chosen where an engine runs"),
        ({"backend": "tensorrt-rtx"}, UsageError, "Triton has no backend for tensorrt-rtx"),
        ({"backend": "onnxruntime-cpu", "engine": engine}, UsageError, "leave --backend onnxruntime-cpu out"),
        ({"engine": tmp_path / "none"}, UsageError, "none is no file"),
        ({"output": calibrated}, UsageError, "is not an empty folder"),
    ]
    for changes, kind, reason in cases:
        with pytest.raises(kind, match=reason):
            config_of(calibrated, changes.pop("output", tmp_path / "models"), **changes)
    assert list(tmp_path.iterdir()) == [engine]


def test_a_bundle_that_is_not_calibrated_is_refused(small_bundle_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="is not calibrated: run `diffood calibrate"):
        write_native_model(small_bundle_copy, ModelPlace(tmp_path / "models"), NativeSettings())
