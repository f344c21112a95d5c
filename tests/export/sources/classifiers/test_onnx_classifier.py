"""onnx:FILE: which tensors are taken for logits and features, and what a graph must not be."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
import onnxruntime
from onnx import TensorProto, helper
from refusals import assert_refused
from small_graphs import CLASSES, FEATURES, SIDE, small_graph

from diffood.errors import ExportError
from diffood.export.sources.classifiers.classifier import Classifier, load_classifier
from diffood.export.sources.classifiers.source import ClassifierSource

node = helper.make_node
GEMM = node("Gemm", ["flat", "linear", "bias"], ["scores"], transB=1)


def load(model: onnx.ModelProto, folder: Path, **options: str) -> Classifier:
    onnx.save(model, folder / "net.onnx")
    return load_classifier(ClassifierSource(f"onnx:{folder / 'net.onnx'}", **options), SIDE, SIDE)  # type: ignore[arg-type]


def run(model: onnx.ModelProto, x: np.ndarray, *names: str) -> list[np.ndarray]:
    """What ONNX Runtime gives for tensors of the original graph."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names), {"images": x})


# What comes after `flat`, its outputs, which tensor has the logits, and after which layer the features are taken.
HEADS: dict[str, tuple[list, list[str], str, str]] = {
    "gemm": ([GEMM], ["scores"], "scores", "Gemm"),
    "softmax": ([GEMM, node("Softmax", ["scores"], ["p"])], ["p"], "scores", "Gemm"),
    "unused copy": ([GEMM, node("Identity", ["flat"], ["deep"])], ["scores"], "scores", "Gemm"),
    "two outputs": (
        [node("Gemm", ["flat", "linear", "bias"], ["logits"], transB=1), node("Relu", ["flat"], ["z"])],
        ["z", "logits"], "logits", "Gemm"),
    "product and sum": (
        [node("MatMul", ["flat", "turned"], ["s"]), node("Add", ["s", "bias"], ["scores"])],
        ["scores"], "scores", "MatMul"),
    "convolution after the pooling": (
        [node("Conv", ["pooled", "point", "bias"], ["s"]), node("Flatten", ["s"], ["scores"])],
        ["scores"], "scores", "Conv"),
    "convolution before the pooling": (
        [node("Conv", ["maps", "point", "bias"], ["s"]), node("GlobalAveragePool", ["s"], ["g"]),
         node("Flatten", ["g"], ["scores"])],
        ["scores"], "scores", "Conv"),
}  # fmt: skip


def test_logits_and_features_are_found(tmp_path: Path, subtests: pytest.Subtests) -> None:
    x = np.random.default_rng(1).normal(size=(3, 3, SIDE, SIDE)).astype(np.float32)
    for name, (head, outputs, logits, layer) in HEADS.items():
        with subtests.test(name):
            model = small_graph(head, outputs=outputs)
            found = load(model, tmp_path)
            expected = run(model, x, logits, "flat")
            for got, want in zip(found.model(torch.from_numpy(x)), expected, strict=True):
                assert np.abs(got.numpy() - want).max() < 1e-6
            assert (found.classes, found.features, found.channels) == (CLASSES, FEATURES, 3)
            assert found.preprocessing.size == (SIDE, SIDE)
            assert f"what goes into its last {layer}" in found.features_from
    assert f"its logits are {logits}" in found.notes[0]


def test_features_of_a_transformer_are_the_mean_of_its_tokens(tmp_path: Path) -> None:
    head = [
        node("Reshape", ["maps", "to_tokens"], ["columns"]),
        node("Transpose", ["columns"], ["tokens"], perm=[0, 2, 1]),
        node("MatMul", ["tokens", "turned"], ["each"]),
        node("Transpose", ["each"], ["by_class"], perm=[0, 2, 1]),
        node("GlobalAveragePool", ["by_class"], ["mean"]),
        node("Flatten", ["mean"], ["scores"]),
    ]
    for opset in (11, 17, 18, 21):
        model = small_graph(head, opset=opset)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, FEATURES, -1]), "to_tokens"))
        found = load(model, tmp_path)
        x = np.random.default_rng(1).normal(size=(3, 3, SIDE, SIDE)).astype(np.float32)
        logits, flat = run(model, x, "scores", "flat")  # pooling is that mean
        got = [value.numpy() for value in found.model(torch.from_numpy(x))]
        assert np.abs(got[0] - logits).max() < 1e-5, opset
        assert np.abs(got[1] - flat).max() < 1e-5, opset


def test_channels_may_come_last(tmp_path: Path) -> None:
    model = small_graph(shape=("N", SIDE, SIDE, 3))
    found = load(model, tmp_path)
    x = np.random.default_rng(1).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    (expected,) = run(model, x.transpose(0, 2, 3, 1), "scores")
    assert np.abs(found.model(torch.from_numpy(x))[0].numpy() - expected).max() < 1e-6
    assert found.channels == 3


def test_a_graph_of_any_size_takes_the_unets(tmp_path: Path) -> None:
    found = load(small_graph(shape=("N", 3, "H", "W")), tmp_path)
    assert found.preprocessing.size is None
    assert found.prepared.endswith("(--mean and --std are yours to say)")


def test_tensors_can_be_named(tmp_path: Path) -> None:
    model = small_graph([GEMM, node("Relu", ["scores"], ["other"])], outputs=["scores", "other"])
    with pytest.raises(ExportError, match=r"It is not clear .* scores \[2, 5\], other \[2, 5\]. Name it by --logits"):
        load(model, tmp_path)
    found = load(model, tmp_path, logits="scores", features="maps")
    x = np.random.default_rng(1).normal(size=(3, 3, SIDE, SIDE)).astype(np.float32)
    for got, want in zip(found.model(torch.from_numpy(x)), run(model, x, "scores", "flat"), strict=True):
        assert np.abs(got.numpy() - want).max() < 1e-6
    assert found.features_from == "maps, as named"
    kept = found.model.graph.graph  # without what logits and features do not need
    assert "other" not in {name for made in kept.node for name in made.output}
    assert {tensor.name for tensor in kept.initializer} == {"stem", "linear", "bias"}


WRONG_NAMES = [
    ({"logits": "scoers"}, "--logits-output names 'scoers', which no node of the graph produces; its last tensors are"),
    ({"features": "deep"}, "--features-output names 'deep'"),
    ({"logits": "maps"}, r"maps has shape \[2, 6, 12, 12\], logits have \[2, K\]"),
]


def test_wrong_names_are_explained(tmp_path: Path) -> None:
    assert_refused(ExportError, WRONG_NAMES, lambda options: load(small_graph(), tmp_path, **options))


def with_value(value: float) -> onnx.ModelProto:
    """The graph with one value of its last layer changed."""
    model = small_graph()
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "linear")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0, 0] = value
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, "linear"))
    return model


def test_a_graph_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    fixed_inside = small_graph([node("Reshape", ["flat", "whole"], ["scores"])])  # free by its name alone
    fixed_inside.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, FEATURES]), "whole"))
    foreign = small_graph([node("FusedGemm", ["flat", "linear"], ["scores"], domain="com.microsoft")])
    foreign.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    headless = small_graph()
    del headless.graph.node[:]
    headless.graph.node.extend([node("GlobalAveragePool", ["images"], ["g"]), node("Flatten", ["g"], ["scores"])])
    cases = [
        (small_graph(shape=(1, 3, SIDE, SIDE)), "is fixed at 1: export it again with a free first dimension"),
        (small_graph(shape=("N", 4, SIDE, SIDE)), r"images of shape \[4, 12, 12\]; 1 or 3 channels"),
        (small_graph(shape=("N", 3, SIDE)), "a tensor of 3 dimensions"),
        (small_graph(kind=TensorProto.FLOAT16), "of type float16; export it in float32"),
        (fixed_inside, "cannot run .* batch of 2"),
        (foreign, "not ONNX's own .com.microsoft.FusedGemm."),
        (headless, "No layer with weights"),
        (with_value(np.nan), "'linear' in .*net.onnx holds NaN"),
        (with_value(np.inf), "'linear' in .*net.onnx holds Infinity"),
    ]
    assert_refused(ExportError, cases, lambda model: load(model, tmp_path))


def test_weights_beside_the_graph_are_read(tmp_path: Path) -> None:
    whole = load(small_graph(), tmp_path)
    onnx.save(
        small_graph(), tmp_path / "apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0
    )
    apart = load_classifier(ClassifierSource(f"onnx:{tmp_path / 'apart.onnx'}"), SIDE, SIDE)
    x = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(got, want) for got, want in zip(apart.model(x), whole.model(x), strict=True))
    before = apart.sha256
    data = bytearray((tmp_path / "apart.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "apart.data").write_bytes(data)
    again = load_classifier(ClassifierSource(f"onnx:{tmp_path / 'apart.onnx'}"), SIDE, SIDE)
    assert again.sha256 != before


def test_local_functions_are_written_out(tmp_path: Path) -> None:
    function = helper.make_function(
        "mine", "Head", ["z", "w", "b"], ["s"], [node("Gemm", ["z", "w", "b"], ["s"], transB=1)],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model = small_graph([node("Head", ["flat", "linear", "bias"], ["scores"], domain="mine")])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    found = load(model, tmp_path)
    x = np.random.default_rng(1).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    (expected,) = run(small_graph(), x, "scores")
    assert np.abs(found.model(torch.from_numpy(x))[0].numpy() - expected).max() < 1e-6
    assert "Gemm" in found.features_from
