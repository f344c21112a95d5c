"""Attack: a large graph's file of weights that is changed, cut, replaced, or that the graph looks for elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import undone
from outside_weights import move_outside, point_outside, seal
from sealed import sealed

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.graphs import read_graph, read_model
from diffood.runtime.detector import Detector

onnx = pytest.importorskip("onnx", reason="needs the extra: export")

NAME = "classify.weights"
Change = Callable[[Any, list[Any]], None]


@pytest.fixture
def large(victim: Path) -> Path:
    """A bundle whose classify graph keeps its weights outside, and opens."""
    assert move_outside(victim, "classify") == NAME
    load(victim)
    return victim


def load(path: Path) -> None:
    bundle = open_bundle(path)
    Detector.load(bundle, bundle.plan("fast"), batch=1, threads=1)


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


def places(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def change_graph(path: Path, change: Change) -> None:
    """Let a function change the graph and its weights outside, and seal what comes out."""
    model = onnx.load(path / "classify.onnx", load_external_data=False)
    change(model, [tensor for tensor in model.graph.initializer if tensor.external_data])
    (path / "classify.onnx").write_bytes(model.SerializeToString())
    seal(path, "classify.onnx")


def move(**changed: object) -> Change:
    """Have the first weight lie elsewhere."""
    return lambda _, weights: point_outside(weights[0], **{**places(weights[0]), **changed})


def overlap(_: Any, weights: list[Any]) -> None:
    point_outside(weights[1], **{**places(weights[1]), "offset": int(places(weights[0])["offset"]) + 4})


def enlarge(_: Any, weights: list[Any]) -> None:
    weights[0].dims[0] += 1


def retype(_: Any, weights: list[Any]) -> None:
    weights[0].data_type = onnx.TensorProto.INT32


def name_twice(_: Any, weights: list[Any]) -> None:
    weights[1].name = weights[0].name


def say_twice(_: Any, weights: list[Any]) -> None:
    weights[0].external_data.add(key="offset", value="0")


def keep_values_too(_: Any, weights: list[Any]) -> None:
    weights[0].raw_data = b"\0" * 4


def deny_it(_: Any, weights: list[Any]) -> None:
    weights[0].data_location = onnx.TensorProto.DEFAULT


def hide_in_a_node(model: Any, weights: list[Any]) -> None:
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["hidden"], value=weights[0]))


def test_a_graph_that_misplaces_its_weights_is_refused(large: Path, subtests: pytest.Subtests) -> None:
    for change, message in [
        (move(location="golden.npz"), r"in 'golden\.npz', where only classify\.weights is hashed"),
        (move(location="./classify.weights"), r"in '\./classify\.weights', where only"),
        (move(location="../classify.weights"), r"in '\.\./classify\.weights', where only"),
        (move(location="/etc/hostname"), "in '/etc/hostname', where only"),
        (move(location=""), "in '', where only"),
        (move(location="classify.weights\0"), r"in 'classify\.weights\\x00', where only"),
        (move(location="c" * 10**4), "no text of at most 500 bytes"),
        (move(offset=2**40), "beyond the end of"),
        (move(offset=-4), "'-4' where a whole number is expected"),
        (move(offset="0x10"), "'0x10' where a whole number is expected"),
        (move(offset="9" * 400), "where a whole number is expected"),
        (move(offset=2), "at byte 2 of classify.weights, between two values"),
        (move(length=0), "values have 0 bytes"),
        (move(checksum="0"), "without location, offset and length"),
        (overlap, "weights that overlap in"),
        (enlarge, "values have"),
        (retype, "of type 6 in classify.weights, only float32 and float16 are allowed"),
        (name_twice, "two weights of one name"),
        (say_twice, "'offset' twice"),
        (keep_values_too, "field 9 of a weight"),
        (deny_it, "without location, offset and length"),
        (hide_in_a_node, "not one of the graph's own weights"),
    ]:
        with subtests.test(change=change, message=message), undone(large):
            change_graph(large, change)
            with pytest.raises(BundleError, match=message):
                load(large)
            with pytest.raises(BundleError, match=message):  # as engines are built from it
                read_model(open_bundle(large), open_bundle(large).graph("classify"))


def test_weights_that_the_graphs_entry_does_not_name_are_refused(large: Path) -> None:
    manifest = json.loads((large / "manifest.json").read_bytes())
    for graph in manifest["graphs"]:
        graph["data"] = None
    (large / "manifest.json").write_bytes(sealed(manifest))
    assert "keeps weights in other files, which are not hashed" in refusal(large)


def test_a_weights_file_that_the_manifest_does_not_hash_is_refused(large: Path) -> None:
    manifest = json.loads((large / "manifest.json").read_bytes())
    del manifest["files"][NAME]
    (large / "manifest.json").write_bytes(sealed(manifest))
    assert f"{NAME!r} is not among the manifest's files" in refusal(large)


def test_a_path_in_the_place_of_the_files_name_is_refused(large: Path, subtests: pytest.Subtests) -> None:
    for name in ["../classify.weights", "/etc/hostname", "", "a/b"]:
        with subtests.test(name=name), undone(large):
            manifest = json.loads((large / "manifest.json").read_bytes())
            for graph in manifest["graphs"]:
                graph["data"] = name
            (large / "manifest.json").write_bytes(sealed(manifest))
            assert "manifest.json is invalid" in refusal(large)


def test_one_changed_byte_is_refused(large: Path) -> None:
    data = bytearray((large / NAME).read_bytes())
    data[-1] ^= 1
    (large / NAME).write_bytes(data)
    assert f"{NAME} was changed after export" in refusal(large)


def test_a_cut_file_is_refused(large: Path) -> None:
    (large / NAME).write_bytes((large / NAME).read_bytes()[:-4096])
    assert f"{NAME} was changed after export" in refusal(large)


def test_a_link_is_refused_even_to_the_same_bytes(large: Path, tmp_path: Path) -> None:
    (large / NAME).rename(tmp_path / "elsewhere")
    (large / NAME).symlink_to(tmp_path / "elsewhere")
    assert f"{NAME} cannot be opened" in refusal(large)


def test_a_file_that_is_swapped_after_the_bundle_was_opened_is_refused(large: Path) -> None:
    bundle = open_bundle(large)
    (large / NAME).write_bytes(bytes((large / NAME).stat().st_size))
    with pytest.raises(BundleError, match=f"{NAME} was changed after export"):
        Detector.load(bundle, bundle.plan("fast"), batch=1, threads=1)


def test_what_is_written_to_the_file_after_it_was_hashed_reaches_no_engine(large: Path) -> None:
    graph = read_graph(open_bundle(large), "classify", "fp32")
    before = {name: np.array(values) for name, values in graph.outside.items()}
    with (large / NAME).open("r+b") as file:
        file.write(b"\xff" * 4096)
        file.truncate(4096)  # were it mapped, the next read would kill the process
    assert before.keys() == graph.outside.keys()
    assert all(np.array_equal(before[name], values) for name, values in graph.outside.items())


def test_the_weights_cannot_be_changed_by_who_holds_them(large: Path) -> None:
    weight = next(iter(read_graph(open_bundle(large), "classify", "fp32").outside.values()))
    with pytest.raises(ValueError, match="read-only"):
        weight[...] = 0


def test_more_weights_than_memory_are_an_error_that_says_so(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffood.errors import EngineMemoryError
    from diffood.runtime.bundle import bundle as module

    def full(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(module.mmap, "mmap", full)
    with pytest.raises(EngineMemoryError, match=rf"{NAME} has \d+ bytes and there is not enough memory"):
        load(large)
