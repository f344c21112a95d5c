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


def test_functions_that_double_are_refused_before_they_are_written_out(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    def function(name: str, *called: str) -> onnx.FunctionProto:
        names = [f"t{number}" for number in range(len(called) + 1)]
        domains = ["" if kind == "Identity" else "mine" for kind in called]
        nodes = [
            onnx.helper.make_node(kind, [start], [end], domain=domain)
            for kind, start, end, domain in zip(called, names[:-1], names[1:], domains, strict=True)
        ]
        imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("mine", 1)]
        return onnx.helper.make_function("mine", name, names[:1], names[-1:], nodes, imports)

    doubling = [function("F0", "Identity"), *(function(f"F{n}", *[f"F{n - 1}"] * 2) for n in range(1, 26))]
    deep = [function("F0", "Identity"), *(function(f"F{n}", f"F{n - 1}") for n in range(1, 60))]
    circle = [function("F0", "F1"), function("F1", "F0")]
    twice = [function("F0", "Identity"), function("F0", "Identity", "Identity")]
    for functions, said in (
        (doubling, "are more than 50000 nodes"),
        (deep, "call each other more than 32 deep"),
        (circle, "call each other more than 32 deep"),
        (twice, "two functions of one name"),
    ):
        with subtests.test(said=said):
            model = small_graph()
            model.opset_import.append(onnx.helper.make_opsetid("mine", 1))
            model.functions.extend(functions)
            last = model.graph.node[-1].output[0]
            model.graph.node[-1].output[0] = "before"
            model.graph.node.append(onnx.helper.make_node(functions[-1].name, ["before"], [last], domain="mine"))
            (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
            with pytest.raises(ExportError, match=said):
                load(tmp_path / "net.onnx")


def test_an_operator_that_no_bundle_may_have_is_refused_by_name(tmp_path: Path) -> None:
    model = small_graph()
    model.graph.node.append(onnx.helper.make_node("NonZero", ["scores"], ["places"]))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ExportError, match=r"may not use \(NonZero\); export it without"):
        load(tmp_path / "net.onnx")
