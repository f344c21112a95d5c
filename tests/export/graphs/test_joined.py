"""A classify graph whose classifier was ONNX already: one file that equals ONNX Runtime on the original."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
import onnxruntime
from small_graphs import CLASSES, FEATURES, SIDE, small_graph

from diffood.errors import ExportError
from diffood.export.graphs.joined import export_joined
from diffood.export.graphs.modules import ClassifyGraph
from diffood.export.int8.qdq import list_products
from diffood.export.onnx.precision import LIMITS, count_products, prove_types
from diffood.export.onnx.proof import prove_equal, run_onnx, run_torch
from diffood.export.sources.classifiers.classifier import load_classifier
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.classifiers.source import ClassifierSource

OUTPUTS = ("logits", "features")
HEIGHT, WIDTH = 9, 10  # of the images, other than the classifier's
PREPARED = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def images(batch: int) -> dict[str, torch.Tensor]:
    return {"x": torch.rand(batch, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(batch)) * 2 - 1}


def graph_of(model: onnx.ModelProto, folder: Path) -> ClassifyGraph:
    """Of a UNet of grey images of another size than the classifier's."""
    onnx.save(model, folder / "net.onnx")
    spec = f"onnx:{folder / 'net.onnx'}"
    return ClassifyGraph(
        load_classifier(ClassifierSource(spec, None, PREPARED), HEIGHT, WIDTH), 1, HEIGHT, WIDTH
    ).eval()


def test_one_file_equals_the_original(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for case, (model, opset) in {
        "newer": (small_graph(), 21),
        "oldest": (small_graph(), 18),
        "old exporter": (small_graph(opset=9, ir_version=3), 21),
        "older": (small_graph(opset=21, ir_version=10), 20),
        "channels last": (small_graph(shape=("N", SIDE, SIDE, 3)), 21),
    }.items():
        with subtests.test(case=case):
            graph, path = graph_of(model, tmp_path), tmp_path / "classify.onnx"
            export_joined(graph, images(2), OUTPUTS, path, opset)
            proof = prove_equal(run_torch(graph), path, OUTPUTS, (images(batch) for batch in (1, 2, 5)), LIMITS["fp32"])
            assert (proof.rows, prove_types(path, "fp32").keys()) == (8, {"float32"})
            # and the original, fed by hand
            x = images(3)["x"]
            image = torch.nn.functional.interpolate((x + 1) / 2, (SIDE, SIDE), mode="bilinear", antialias=True)
            mean, std = (torch.tensor(values)[:, None, None] for values in (PREPARED.mean, PREPARED.std))
            fed = ((image.repeat(1, 3, 1, 1) - mean) / std).numpy()
            if graph.model.layout == "NHWC":
                fed = fed.transpose(0, 2, 3, 1)
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            (scores,) = session.run(["scores"], {"images": fed})
            logits, features = run_onnx(path, OUTPUTS)({"x": x})
            assert np.abs(logits - scores).max() < 1e-5
            assert features.shape == (3, FEATURES)
            assert logits.shape == (3, CLASSES)


def test_halved_it_computes_in_fp16_and_takes_and_gives_fp32(tmp_path: Path) -> None:
    graph, path = graph_of(small_graph(), tmp_path), tmp_path / "classify.onnx"
    export_joined(graph, images(2), OUTPUTS, path, 21)
    graph.model.half()
    half = tmp_path / "classify.fp16.onnx"
    export_joined(graph, images(2), OUTPUTS, half, 21)
    assert count_products(half) == {"float16": 2}
    assert prove_types(half, "fp16")["float32"] == 6  # the mean and deviation before it
    proof = prove_equal(run_onnx(path, OUTPUTS), half, OUTPUTS, (images(batch) for batch in (1, 2, 5)), LIMITS["fp16"])
    assert proof.error > 0


def test_resizing_is_no_layer_of_the_classifier(tmp_path: Path) -> None:
    graph, path = graph_of(small_graph(), tmp_path), tmp_path / "classify.onnx"
    export_joined(graph, images(2), OUTPUTS, path, 21)
    model = onnx.load(path)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("MatMul") == 2  # rows and columns of the image
    assert "Resize" not in kinds  # whose antialiasing TensorRT refuses
    assert [node.op_type for node in list_products(model)] == ["Conv", "Gemm"]


def test_an_opset_it_cannot_be_written_in_is_explained(tmp_path: Path) -> None:
    model = small_graph(opset=22, ir_version=10)
    node = onnx.helper.make_node("Gelu", ["flat"], ["active"])  # since opset 20
    model.graph.node.insert(4, node)
    model.graph.node[5].input[0] = "active"
    graph = graph_of(model, tmp_path)
    with pytest.raises(ExportError, match="written in opset 22 and cannot be rewritten in 18"):
        export_joined(graph, images(2), OUTPUTS, tmp_path / "classify.onnx", 18)
