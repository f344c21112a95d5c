"""A classifier's ONNX file that is none, is cut off, or whose bytes were changed: an explanation or a sound graph."""

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")
from small_graphs import SIDE, small_graph

from diffood.errors import ExportError
from diffood.export.sources.classifiers.classifier import load_classifier
from diffood.export.sources.classifiers.source import ClassifierSource


def load(path: Path) -> object:
    return load_classifier(ClassifierSource(f"onnx:{path}"), SIDE, SIDE)


def test_bytes_that_are_no_graph_are_explained(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for content in [b"", b"not a graph", b"\x08\x09", bytes(1000)]:
        with subtests.test(content=content):
            (tmp_path / "net.onnx").write_bytes(content)
            with pytest.raises(ExportError, match=r"net\.onnx"):
                load(tmp_path / "net.onnx")


def test_changed_bytes_give_an_explanation_or_a_graph(tmp_path: Path) -> None:
    whole = small_graph().SerializeToString()
    draw, refused, path = np.random.default_rng(0), 0, tmp_path / "net.onnx"
    for _ in range(150):
        damaged = bytearray(whole)
        for at in draw.integers(0, len(whole), draw.integers(1, 4)):
            damaged[at] ^= 1 << draw.integers(8)
        if draw.random() < 0.2:
            damaged = damaged[: draw.integers(len(whole))]
        path.write_bytes(damaged)
        try:
            load(path)
        except ExportError:
            refused += 1
    assert 0 < refused < 150


def test_a_graph_that_branches_is_refused(tmp_path: Path) -> None:
    branch = onnx.parser.parse_graph("b () => (float[N, 5] s) { s = Identity(scores) }")
    choice = onnx.helper.make_node("If", ["which"], ["chosen"], then_branch=branch, else_branch=branch)
    model = small_graph(outputs=["scores"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "which"))
    model.graph.node.append(choice)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ExportError, match=r"control flow \(If\)"):
        load(tmp_path / "net.onnx")
