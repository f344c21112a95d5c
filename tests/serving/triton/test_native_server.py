"""The model for Triton's own backends in a real server: its config is valid, and verdicts equal Python's.

Skipped where there is no server, and partly where it lacks the ONNX Runtime backend: docs/triton.md says what has it.
"""

import importlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format
from triton_server import refuse_to_start, running

from diffood.runtime.detector import Detector
from diffood.serving.triton.native import NativeSettings, write_native_model
from diffood.serving.triton.repository import ModelPlace

pytestmark = pytest.mark.slow  # a server takes seconds to start

BATCH = 8
MISSING = "unable to find backend library for backend 'onnxruntime'"


@pytest.fixture
def repository(served_bundle: Path, tmp_path: Path) -> Path:
    """A repository of the model."""
    place = ModelPlace(tmp_path / "models", instances=2, queue_delay=20_000)
    write_native_model(served_bundle, place, NativeSettings(batch=BATCH, threads=1))
    return tmp_path / "models"


def has_backend(command: list[str]) -> bool:
    """Whether the server has the ONNX Runtime backend."""
    return (Path(command[command.index("--backend-directory") + 1]) / "onnxruntime").is_dir()


def test_the_configuration_is_one_that_triton_knows(repository: Path) -> None:
    pytest.importorskip("tritonclient.grpc", reason="no client: install tritonclient[http,grpc]")
    model_config_pb2 = importlib.import_module("tritonclient.grpc.model_config_pb2")
    text = (repository / "diffood" / "config.pbtxt").read_text("utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())  # raises for a field that it does not have
    assert (config.name, config.backend, config.max_batch_size) == ("diffood", "onnxruntime", BATCH)
    assert [(value.name, list(value.dims)) for value in config.input] == [("image", [1, 28, 28])]
    assert config.input[0].data_type == model_config_pb2.TYPE_UINT8
    outputs = {value.name: value for value in config.output}
    assert outputs["is_ood"].data_type == model_config_pb2.TYPE_BOOL
    assert outputs["is_ood"].HasField("reshape")
    assert list(outputs["denoised"].dims) == [1, 28, 28]
    assert config.dynamic_batching.max_queue_delay_microseconds == 20_000
    assert config.instance_group[0].count == 2
    assert config.parameters["intra_op_thread_count"].string_value == "1"


def test_a_server_without_the_backend_has_no_other_complaint(
    command: list[str], repository: Path, tmp_path: Path
) -> None:
    if has_backend(command):
        pytest.skip("this server has the ONNX Runtime backend")
    log = refuse_to_start(command, repository, tmp_path / "log")
    assert MISSING in log
    assert "Error parsing" not in log


def test_verdicts_equal_those_of_python(
    command: list[str],
    served_bundle: Path,
    repository: Path,
    tmp_path: Path,
    clothes: npt.NDArray[np.uint8],
    digits: npt.NDArray[np.uint8],
) -> None:
    if not has_backend(command):
        pytest.skip("this Triton server has no ONNX Runtime backend")
    client_module = importlib.import_module("tritonclient.http")
    pixels = np.concatenate([clothes, digits])[:, None]
    expected = Detector.open(served_bundle, batch=BATCH, threads=1).predict(pixels)
    found: dict[str, list[npt.NDArray[np.generic]]] = {"is_ood": [], "p_value": [], "predicted_class": []}
    with running(command, repository, tmp_path / "log") as ports:
        client = client_module.InferenceServerClient(f"127.0.0.1:{ports['http']}")
        for begin in range(0, len(pixels), BATCH):
            part = pixels[begin : begin + BATCH]
            image = client_module.InferInput("image", list(part.shape), "UINT8")
            image.set_data_from_numpy(part)
            answer = client.infer("diffood", [image])
            for name, values in found.items():
                values.append(answer.as_numpy(name)[:, 0])
    np.testing.assert_array_equal(np.concatenate(found["is_ood"]), expected.is_ood)
    np.testing.assert_allclose(np.concatenate(found["p_value"]), expected.p_value, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(np.concatenate(found["predicted_class"]), expected.predicted)
