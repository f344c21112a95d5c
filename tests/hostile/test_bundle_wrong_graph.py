"""Attack: a sound graph in the role of another, or of other shapes than the manifest says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector

Reseal = Callable[[str, bytes], None]
Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


def refusal(folder: Path) -> str:
    bundle = open_bundle(folder)
    with pytest.raises(BundleError, match="Export the bundle again") as caught:
        Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_graph_in_the_role_of_another_is_refused(victim: Path, reseal: Reseal, subtests: pytest.Subtests) -> None:
    for role, other in [
        ("step_guided", "classify"),
        ("step_guided", "step_plain"),
        ("classify", "step_plain"),
        ("classify", "step_guided"),
    ]:
        with subtests.test(role=role, other=other), undone(victim):
            reseal(f"{role}.onnx", (victim / f"{other}.onnx").read_bytes())
            assert f"{role}.onnx is not a {role} graph: its inputs are" in refusal(victim)


def test_an_entry_that_names_the_file_of_another_role_is_refused(victim: Path, rewrite: Rewrite) -> None:
    def change(manifest: dict[str, Any]) -> None:
        for entry in manifest["graphs"]:
            entry["file"] = "classify.onnx"

    rewrite(change)
    assert "classify.onnx is not a step_guided graph" in refusal(victim)


def test_shapes_that_the_manifest_tells_otherwise_are_refused(
    victim: Path, rewrite: Rewrite, subtests: pytest.Subtests
) -> None:
    for case, (change, part) in {
        "height": (lambda manifest: manifest["image"].update(height=32), "inputs"),
        "channels": (lambda manifest: manifest["image"].update(channels=3), "inputs"),
        "class_names": (lambda manifest: manifest["class_names"].append("one more"), "outputs"),
        "feature_count": (lambda manifest: manifest.update(feature_count=127), "outputs"),
    }.items():
        with subtests.test(case=case), undone(victim):
            rewrite(change)
            assert f"classify.onnx is not a classify graph: its {part} are" in refusal(victim)


def test_labels_that_the_manifest_denies_are_refused(victim: Path, rewrite: Rewrite) -> None:
    rewrite(lambda manifest: manifest["unet"].update(labels="none"))
    assert "label tensor(int64)" in refusal(victim)


def test_graphs_with_operators_of_different_versions_are_refused(victim: Path, reseal: Reseal) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra: export")
    original = (victim / "step_guided.onnx").read_bytes()
    for domain, versions, said in (
        ("", (19,), "'ai.onnx' in two versions, classify.onnx of version 21 and step_guided.onnx of version 19"),
        ("ai.onnx", (19,), "'ai.onnx' in two versions"),
        ("ai.onnx", (18,), "step_guided.onnx cannot be used: it is of opset 18, and ONNX Runtime may compute those"),
        ("x", (1, 1), "step_guided.onnx cannot be used: it imports the operators of a domain twice"),
    ):
        changed = onnx.load_from_string(original)
        if len(versions) == 1:
            del changed.opset_import[:]
        changed.opset_import.extend(onnx.helper.make_opsetid(domain, version) for version in versions)
        reseal("step_guided.onnx", changed.SerializeToString())
        assert said in refusal(victim)
    reseal("step_guided.onnx", original)
    Detector.load(open_bundle(victim), open_bundle(victim).plan("fast"), threads=1)  # another step graph


def test_a_frozen_batch_and_another_type_are_refused(victim: Path, reseal: Reseal) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra: export")
    path = victim / "classify.onnx"
    frozen = onnx.load(path)
    for value in (*frozen.graph.input, *frozen.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    frozen.graph.ClearField("value_info")
    reseal("classify.onnx", frozen.SerializeToString())
    assert "x tensor(float)[1, 1, 28, 28]" in refusal(victim)
    made = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["batch", *rest])
        for name, rest in (("x", [1, 28, 28]), ("logits", [10]), ("features", [256]))
    ]
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["flat"]),
        onnx.helper.make_node("Slice", ["flat", "zero", "ten", "one"], ["logits"]),
        onnx.helper.make_node("Slice", ["flat", "zero", "many", "one"], ["features"]),
    ]
    numbers = [
        onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value])
        for name, value in (("zero", 0), ("one", 1), ("ten", 10), ("many", 256))
    ]
    graph = onnx.helper.make_graph(nodes, "doubles", made[:1], made[1:], numbers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=8)
    reseal("classify.onnx", model.SerializeToString())
    assert "x tensor(double)" in refusal(victim)
