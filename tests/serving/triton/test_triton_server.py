"""The Triton model in a real server: rows equal serve-batch's to the bit, over HTTP and gRPC, whatever else is sent.

Skipped where there is no server: docs/triton.md says how to run it.
"""

import http.client
import importlib.util
import json
import math
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from triton_requests import broken_images, serve_folder
from triton_server import PROTOCOLS, refuse_to_start, running

from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import ImageLimits
from diffood.serving.rows.row import Row
from diffood.serving.triton.config import TritonSettings
from diffood.serving.triton.python_backend import write_decoding_model
from diffood.serving.triton.repository import ModelPlace
from diffood.serving.triton.tensors import OUTPUTS
from diffood.zoo.images import unpack_set

pytestmark = pytest.mark.slow  # a server takes seconds to start

BATCH = 8
LIMITS = ImageLimits(max_bytes=20_000, max_pixels=1_000_000)
SETTINGS = TritonSettings(
    backend="onnxruntime-cpu", batch=BATCH, threads=1, max_bytes=LIMITS.max_bytes, max_pixels=LIMITS.max_pixels
)


@dataclass(frozen=True)
class Served:
    """A running server's ports, and what serve-batch says of the images that are sent to it."""

    ports: dict[str, int]
    images: dict[str, bytes]
    rows: dict[str, Row]


@pytest.fixture(scope="module")
def served(command: list[str], served_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The bundle in a running server, and serve-batch's rows of embedded and of broken images."""
    place = tmp_path_factory.mktemp("server")
    for name in ("fashion-test", "digits", "textures"):
        unpack_set(name, place / "sets" / name, 10)
    good = {f"{path.parent.name}-{path.name}": path.read_bytes() for path in sorted(place.glob("sets/*/*.png"))}
    images = good | broken_images()
    rows = serve_folder(Detector.open(served_bundle, batch=BATCH, threads=1), images, place, LIMITS)
    write_decoding_model(served_bundle, ModelPlace(place / "models", queue_delay=20_000), SETTINGS)
    with running(command, place / "models", place / "log") as ports:
        yield Served(ports, images, rows)


def client_of(protocol: str) -> ModuleType:
    return importlib.import_module(f"tritonclient.{protocol}")


def ask(served: Served, protocol: str, names: Sequence[str]) -> list[Row]:
    """The rows of one request with these images."""
    client = client_of(protocol)
    value = client.InferInput("image", [len(names), 1], "BYTES")
    value.set_data_from_numpy(np.array([[served.images[name]] for name in names], np.object_))
    # one connection a request: those of the HTTP client are not for several threads
    with client.InferenceServerClient(f"127.0.0.1:{served.ports[protocol]}") as connection:
        answer = connection.infer("diffood", [value])
    columns = {name: answer.as_numpy(name) for name in OUTPUTS}
    assert {name: column.shape for name, column in columns.items()} == dict.fromkeys(OUTPUTS, (len(names), 1))
    return [
        as_row(
            {
                name: column[index, 0].item() if OUTPUTS[name] != "string" else column[index, 0].decode()
                for name, column in columns.items()
            }
        )
        for index in range(len(names))
    ]


def as_row(values: dict[str, Any]) -> Row:
    """The row behind one image's values: of a refused one those that stand for None were none."""
    if values["status"] == "rejected":
        stand_ins = {"is_ood": True, "predicted_class": -1, "class_name": "", "stage": -1}
        assert {name: values[name] for name in stand_ins} == stand_ins
        values |= dict.fromkeys(stand_ins)
        for name in ("score", "p_value", "threshold", "confidence"):
            assert math.isnan(values[name])
            values[name] = None
    return Row(id="", **values)


def test_rows_equal_those_of_serve_batch_to_the_bit(served: Served) -> None:
    names = list(served.images)
    for protocol in PROTOCOLS:
        for size in (1, 3, BATCH):
            found = {}
            for begin in range(0, len(names), size):
                part = names[begin : begin + size]
                found |= dict(zip(part, ask(served, protocol, part), strict=True))
            assert {row.status for row in found.values()} == {"ok", "rejected"}
            assert found == served.rows, (protocol, size)


def test_requests_that_share_a_batch_with_broken_images_are_answered(served: Served) -> None:
    good = [name for name, row in served.rows.items() if row.status == "ok"]
    broken = [name for name, row in served.rows.items() if row.status == "rejected"]
    requests = [[good[index], broken[index % len(broken)]][: 1 + index % 2] for index in range(len(good))]
    requests += [[name] for name in broken]
    expected = [[served.rows[name] for name in names] for names in requests]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda names: ask(served, "http", names), requests)) == expected
        assert list(pool.map(lambda names: ask(served, "grpc", names), requests)) == expected
    statistics = inference_statistics(served)
    assert int(statistics["execution_count"]) < int(statistics["inference_count"])  # batches were shared


def inference_statistics(served: Served) -> dict[str, Any]:
    with client_of("http").InferenceServerClient(f"127.0.0.1:{served.ports['http']}") as connection:
        (statistics,) = connection.get_inference_statistics("diffood")["model_stats"]
    return dict(statistics)


def element(data: bytes) -> bytes:
    """One element of a BYTES tensor: its length, then itself."""
    return struct.pack("<I", len(data)) + data


INVALID_REQUESTS: dict[str, tuple[dict[str, Any], bytes]] = {
    "length beyond the end": ({}, struct.pack("<I", 1000) + b"abc"),
    "length of 4 GiB": ({}, struct.pack("<I", 2**32 - 1) + b"abc"),
    "half a length": ({}, b"ab"),
    "nothing": ({}, b""),
    "one too many": ({}, element(b"a") + element(b"b")),
    "one too few": ({"shape": [2, 1]}, element(b"a")),
    "two per image": ({"shape": [1, 2]}, element(b"a") + element(b"b")),
    "no batch": ({"shape": [1]}, element(b"a")),
    "empty batch": ({"shape": [0, 1]}, b""),
    "negative": ({"shape": [-1, 1]}, element(b"a")),
    "product overflows": ({"shape": [2**62, 4]}, element(b"a")),
    "above max_batch_size": ({"shape": [BATCH + 1, 1]}, element(b"a") * (BATCH + 1)),
    "pixels": ({"datatype": "UINT8", "shape": [1, 28]}, bytes(28)),
    "another name": ({"name": "picture"}, element(b"a")),
    "size beyond the end": ({"parameters": {"binary_data_size": 10**9}}, element(b"a")),
}


def test_an_invalid_request_is_refused_and_the_server_continues(served: Served) -> None:
    name = next(iter(served.rows))
    for what, (change, raw) in INVALID_REQUESTS.items():
        tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"inputs": [tensor | change]}).encode()
        connection = http.client.HTTPConnection("127.0.0.1", served.ports["http"], timeout=60)
        lengths = {"Inference-Header-Content-Length": str(len(head))}
        connection.request("POST", "/v2/models/diffood/infer", head + raw, lengths)
        answer = connection.getresponse()
        assert answer.status in (400, 500), what
        assert json.loads(answer.read())["error"], what
        assert ask(served, "http", [name]) == ask(served, "grpc", [name]) == [served.rows[name]], what


def test_an_image_of_many_megabytes_is_a_refused_row(served: Served) -> None:
    name, large = next(iter(served.rows)), bytes(40 * 2**20)
    sent = Served(served.ports, {**served.images, "large": large}, served.rows)
    refused, scored = ask(sent, "http", ["large", name])
    assert (refused.status, scored) == ("rejected", served.rows[name])
    assert f"has {len(large)} bytes and the limit is {LIMITS.max_bytes}" in refused.error


def test_the_server_reads_the_configuration_as_it_was_meant(served: Served) -> None:
    with client_of("http").InferenceServerClient(f"127.0.0.1:{served.ports['http']}") as connection:
        config = connection.get_model_config("diffood")
    assert TritonSettings.of(config) == SETTINGS
    assert [output["name"] for output in config["output"]] == list(OUTPUTS)
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 20_000
    assert [group["kind"] for group in config["instance_group"]] == ["KIND_CPU"]


def test_a_bundle_changed_in_the_repository_is_not_served(
    command: list[str], served_bundle: Path, tmp_path: Path
) -> None:
    model = write_decoding_model(served_bundle, ModelPlace(tmp_path / "models"), SETTINGS)
    graph = model / "1" / "bundle" / "classify.onnx"
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(data)
    log = refuse_to_start(command, tmp_path / "models", tmp_path / "log")
    assert f"{graph} was changed after export" in log
