"""Attack: a graph whose weights lie in a file outside the bundle, under hashes that fit; it must not be opened."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.external_data import StrayTensorError, find_external_data
from diffood.runtime.detector import Detector

Reseal = Callable[[str, bytes], None]

onnx = pytest.importorskip("onnx", reason="needs the extra: export")

LOCATIONS = ["../x", "/etc/hostname", "x", "./classify.onnx", "", "nowhere"]


def point_outside(tensor: Any, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


def tensor() -> Any:
    return onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")


def outside() -> Any:
    made = tensor()
    point_outside(made, "x")
    return made


def model_with(node: Any = None, **graph_fields: Any) -> Any:
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 4])
    node = node or onnx.helper.make_node("Identity", ["w"], ["y"])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [value], **graph_fields))


def test_an_initialiser_outside_is_refused(
    victim: Path, reseal: Reseal, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for location in LOCATIONS:
        with subtests.test(location=location), undone(victim):
            model = onnx.load(victim / "classify.onnx")
            largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
            for folder in (victim, victim.parent):
                (folder / "x").write_bytes(largest.raw_data)  # were it opened, the graph would load and run
            point_outside(largest, location)
            reseal("classify.onnx", model.SerializeToString())
            monkeypatch.chdir(victim)
            bundle = open_bundle(victim)
            with pytest.raises(
                BundleError, match=r"classify\.onnx keeps weights in other files, which are not hashed; export"
            ):
                Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)


@pytest.mark.skipif(os.name != "posix", reason="FIFOs as POSIX has them")
def test_the_file_outside_is_never_opened(
    victim: Path, reseal: Reseal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    model = onnx.load(victim / "step_guided.onnx")
    point_outside(model.graph.initializer[0], "../fifo")
    reseal("step_guided.onnx", model.SerializeToString())
    monkeypatch.chdir(victim)
    bundle = open_bundle(victim)
    # A reader of the FIFO would wait for a writer for ever, and this writer finds whether there was one.
    with pytest.raises(BundleError, match="keeps weights in other files"):
        Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)
    with pytest.raises(OSError, match="No such device or address"):
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)


def test_every_place_a_tensor_can_hide_in_is_seen() -> None:
    make = onnx.helper.make_node
    constant = make("Constant", [], ["y"], value=outside())
    inner = onnx.helper.make_graph([constant], "inner", [], [])
    sparse = onnx.SparseTensorProto(dims=[4], values=outside(), indices=tensor())
    indices = onnx.SparseTensorProto(dims=[4], values=tensor(), indices=outside())
    listed = onnx.AttributeProto(name="a", type=onnx.AttributeProto.TENSORS, tensors=[tensor(), outside()])
    graphs = onnx.AttributeProto(name="a", type=onnx.AttributeProto.GRAPHS, graphs=[inner])
    several = make("Identity", ["w"], ["y"])
    several.attribute.extend([listed])
    deeper = make("Identity", ["w"], ["y"])
    deeper.attribute.extend([graphs])
    function = model_with()
    function.functions.add(name="f", domain="d").node.append(constant)
    default = model_with()
    default.functions.add(name="f", domain="d").attribute_proto.add(name="a", t=outside())
    training = model_with()
    training.training_info.add().initialization.CopyFrom(inner)
    hiding = {
        "initializer": model_with(initializer=[tensor(), outside()]),
        "constant": model_with(constant),
        "branch": model_with(make("If", ["c"], ["y"], then_branch=inner, else_branch=inner)),
        "sparse constant": model_with(make("Constant", [], ["y"], sparse_value=sparse)),
        "sparse values": model_with(sparse_initializer=[sparse]),
        "sparse indices": model_with(sparse_initializer=[indices]),
        "list of tensors": model_with(several),
        "list of graphs": model_with(deeper),
        "function": function,
        "default of a function": default,
        "training": training,
    }
    for name, model in hiding.items():
        with pytest.raises(StrayTensorError):
            pytest.fail(f"{name}: {find_external_data(model.SerializeToString())}")


def test_tensors_inside_the_file_pass() -> None:
    explicit = tensor()
    explicit.data_location = onnx.TensorProto.DEFAULT
    model = model_with(initializer=[explicit], value_info=[], doc_string="external_data")
    assert find_external_data(model.SerializeToString()) == []


def test_a_graph_given_in_two_pieces_is_seen_whole() -> None:
    # Protobuf joins the pieces of a field that is given twice.
    pieces = [model_with(initializer=[tensor()]), model_with(initializer=[outside()])]
    with pytest.raises(StrayTensorError):
        find_external_data(b"".join(model.SerializeToString() for model in pieces))


def test_an_overlong_tag_hides_nothing() -> None:
    data = outside().SerializeToString()
    graph = b"\x2a" + bytes([len(data)]) + data
    # Field 7 (the graph), first as a 3-byte number, then with a bit that 32-bit parsers drop.
    for tag in (b"\xba\x80\x00", b"\xba\x80\x80\x80\x10"):
        with pytest.raises(StrayTensorError):
            find_external_data(tag + bytes([len(graph)]) + graph)
