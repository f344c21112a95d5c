"""The model for Triton's Python backend as it is written, and rows as tensors; in a server: test_triton_server."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from triton_requests import FAST, broken_images, serve_folder

from diffood.calibration.calibrate import calibrate_files
from diffood.errors import BundleError, CalibrationError, UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.open import list_inputs
from diffood.serving.rows.row import COLUMNS, Row
from diffood.serving.triton.config import TritonSettings, make_config
from diffood.serving.triton.encoded import score_encoded
from diffood.serving.triton.python_backend import write_decoding_model
from diffood.serving.triton.repository import DEFAULT_NAME, ModelPlace
from diffood.serving.triton.tensors import OUTPUTS, make_tensors

SETTINGS = TritonSettings(batch=8, threads=1)
PLACE = ModelPlace(Path("models"), "clothes", queue_delay=700)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle, clothes_folder: Path) -> Path:
    """A copy of the small bundle, calibrated twice on a fused plan, so that it keeps an earlier one; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("triton") / "bundle"))
    for witnesses in (("jump", "msp"), ("jump", "inside")):
        plan = open_bundle(path).plan("plain").changed({**FAST, "witnesses": witnesses})
        detector = Detector.load(open_bundle(path), plan, batch=8, threads=1)
        calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.1, 0.95, "pac").save()
    return path


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_repository_holds_the_bundle_that_is_calibrated(calibrated: Path, tmp_path: Path) -> None:
    model = write_decoding_model(calibrated, ModelPlace(tmp_path / "models"), SETTINGS)
    assert model == tmp_path / "models" / DEFAULT_NAME
    (bank,) = (path.name for path in (calibrated / "calibrations").glob("bank.*"))
    served = {"manifest.json", "calibration.json", f"calibrations/{bank}", *open_bundle(calibrated).manifest.files}
    assert names(model) == {"config.pbtxt", "1/model.py", *(f"1/bundle/{name}" for name in served)}
    assert served < names(calibrated)  # an earlier calibration stays behind
    assert all((model / "1" / "bundle" / name).read_bytes() == (calibrated / name).read_bytes() for name in served)
    copy = Detector.open(model / "1" / "bundle", batch=8, threads=1)
    assert copy.fingerprint == Detector.open(calibrated, batch=8, threads=1).fingerprint
    assert copy.calibration().threshold == json.loads((calibrated / "calibration.json").read_bytes())["threshold"]
    compile((model / "1" / "model.py").read_text(), "model.py", "exec")
    assert (tmp_path / "models").stat().st_mode & 0o005 == 0o005  # a server runs as another user


def test_the_configuration_says_how_the_model_runs() -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({}, "instance_group [ { count: 1 kind: KIND_MODEL } ]"),
        ({"backend": "onnxruntime-cpu"}, "instance_group [ { count: 1 kind: KIND_CPU } ]"),
        ({"backend": "onnxruntime-cuda"}, "instance_group [ { count: 1 kind: KIND_GPU gpus: [ 0 ] } ]"),
        ({"backend": "tensorrt"}, "instance_group [ { count: 1 kind: KIND_GPU gpus: [ 0 ] } ]"),
        ({"batch": 5}, "max_batch_size: 5"),
        ({}, "dynamic_batching { max_queue_delay_microseconds: 700 }"),
        ({}, 'name: "clothes"'),
        ({}, 'backend: "python"'),
        ({}, '  { name: "image" data_type: TYPE_STRING dims: [ 1 ] }'),
        ({}, '  { name: "score" data_type: TYPE_FP64 dims: [ 1 ] },'),
        ({}, '  { name: "is_ood" data_type: TYPE_BOOL dims: [ 1 ] },'),
        ({}, '  { name: "predicted_class" data_type: TYPE_INT64 dims: [ 1 ] },'),
        ({}, '  { name: "error" data_type: TYPE_STRING dims: [ 1 ] }'),
        ({"precision": "int8"}, '  { key: "precision" value: { string_value: "int8" } },'),
        ({"max_bytes": 1000}, '  { key: "max_bytes" value: { string_value: "1000" } },'),
    ]
    for settings, line in cases:
        assert line in make_config(TritonSettings.model_validate(settings), PLACE).splitlines(), settings


def test_the_configuration_names_every_column_that_speaks_of_an_image() -> None:
    outputs = make_config(SETTINGS, PLACE).partition("output [")[2].partition("\n]")[0]
    mine = [name for name in COLUMNS if name not in ("id", "selected", "certificate")]
    assert re.findall(r'name: "(\w+)"', outputs) == list(OUTPUTS) == mine


def test_settings_survive_the_configuration() -> None:
    theirs = {"EXECUTION_ENV_PATH": "/opt/python.tar.gz"}
    for settings in (SETTINGS, TritonSettings(backend="tensorrt", precision="fp16", max_pixels=7)):
        parameters = {name: {"string_value": text} for name, text in (settings.parameters | theirs).items()}
        assert TritonSettings.of({"max_batch_size": settings.batch, "parameters": parameters}) == settings


def test_an_edited_configuration_that_is_invalid_names_the_value() -> None:
    for edit in ({"backend": "gpu"}, {"threads": "two"}, {"max_bytes": "0"}, {"bakend": "auto"}):
        parameters = {name: {"string_value": text} for name, text in edit.items()}
        with pytest.raises(UsageError, match=rf"config\.pbtxt is invalid: {next(iter(edit))}"):
            TritonSettings.of({"max_batch_size": 8, "parameters": parameters})


def test_a_name_that_cannot_be_a_folder_is_refused(calibrated: Path, tmp_path: Path) -> None:
    for name in ("", ".hidden", "a/b", "../up", "a b", 'a"b', "näh", "a\n"):
        with pytest.raises(UsageError, match="cannot be a model's name"):
            write_decoding_model(calibrated, ModelPlace(tmp_path / "models", name), SETTINGS)
    assert not list(tmp_path.iterdir())


def test_settings_that_cannot_be_served_are_refused(calibrated: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, object], int, type[Exception], str]] = [
        ({"batch": 0}, 0, UsageError, "batch of 0 images"),
        ({"threads": -1}, 0, UsageError, "-1 threads"),
        ({}, -1, UsageError, "delay of -1"),
        ({"precision": "int8"}, 0, BundleError, "no int8 graphs"),
    ]
    for values, delay, kind, reason in cases:
        settings = TritonSettings.model_validate(values)
        with pytest.raises(kind, match=reason):
            write_decoding_model(calibrated, ModelPlace(tmp_path / "models", queue_delay=delay), settings)
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_is_not_calibrated_is_refused(small_bundle_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="is not calibrated: run `diffood calibrate"):
        write_decoding_model(small_bundle_copy, ModelPlace(tmp_path / "models"), SETTINGS)
    assert list(tmp_path.iterdir()) == [small_bundle_copy]


def test_an_output_with_something_in_it_stays_as_it_is(calibrated: Path, tmp_path: Path) -> None:
    file, folder, empty = tmp_path / "file", tmp_path / "folder", tmp_path / "empty"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine").touch()
    for output in (file, folder):
        with pytest.raises(UsageError, match="is not an empty folder; choose another --output"):
            write_decoding_model(calibrated, ModelPlace(output), SETTINGS)
    assert (file.read_text(), list(folder.iterdir())) == ("mine", [folder / "mine"])
    empty.mkdir()
    write_decoding_model(calibrated, ModelPlace(empty), SETTINGS)
    assert (empty / DEFAULT_NAME / "config.pbtxt").exists()


def test_bytes_give_the_rows_that_files_give(calibrated: Path, clothes_folder: Path, tmp_path: Path) -> None:
    detector = Detector.open(calibrated, batch=8, threads=1)
    limits = ImageLimits(max_bytes=20_000)
    images = {path.name: path.read_bytes() for path in sorted(clothes_folder.iterdir())[:11]} | broken_images()
    rows = serve_folder(detector, images, tmp_path, limits)
    assert {row.status for row in rows.values()} == {"ok", "rejected"}
    rule = DecisionRule.of(detector.calibration())
    for order in (list(images), list(reversed(images))):
        found = score_encoded(detector, rule, [images[name] for name in order], limits)
        assert found == [rows[name] for name in order]
    assert score_encoded(detector, rule, [], limits) == []


def test_tensors_say_what_rows_say() -> None:
    rows = [
        Row("a", "00ff", "ok", 1.5, 0.25, 2.0, False, 3, "Mantel ☂", 0.75, 1, 2, "resized"),
        Row("b", "", "rejected", error="empty"),
        Row("c", "11", "invalid", math.inf, 0.1, 2.0, True, 3, "x", 0.5, 1, 2, "", "not finite"),
    ]
    tensors = make_tensors(rows)
    assert {name: tensor.shape for name, tensor in tensors.items()} == dict.fromkeys(OUTPUTS, (3, 1))
    assert tensors["class_name"][0, 0] == "Mantel ☂".encode()
    assert tensors["score"][0, 0] == 1.5
    refused = {name: tensor[1, 0] for name, tensor in tensors.items()}
    assert (refused["status"], refused["error"], refused["class_name"]) == (b"rejected", b"empty", b"")
    assert refused["is_ood"] is np.True_
    assert (refused["predicted_class"], refused["stage"], refused["unet_evaluations"]) == (-1, -1, 0)
    assert all(math.isnan(refused[name]) for name in ("score", "p_value", "threshold", "confidence"))
    assert math.isnan(tensors["score"][2, 0])
    assert {name: tensor.shape for name, tensor in make_tensors([]).items()} == dict.fromkeys(OUTPUTS, (0, 1))
