"""Normalisations written as LayerNormalization compute what they did, wherever they stand."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from diffood.runtime.assembly.recipe import list_stages, make_recipe
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.method.plan import REFERENCE
from diffood.runtime.onnx.layer_norms import as_layer_norms

GROUP, INSTANCE = "GroupNormalization", "InstanceNormalization"
# Operator, its attributes, type, shape of x, opset.
CASES: list[tuple[str, dict[str, Any], type[np.generic], tuple[int | str, ...], int]] = [
    (GROUP, {"num_groups": 3, "epsilon": 1e-3}, np.float32, ("batch", 6, 5, 7), 21),
    (GROUP, {"num_groups": 1}, np.float32, ("batch", 6, 5, 7), 22),
    (GROUP, {"num_groups": 6}, np.float32, ("batch", 6, 11), 21),
    (GROUP, {"num_groups": 2}, np.float16, ("batch", 6, 5, 7), 21),
    (INSTANCE, {"epsilon": 1e-2}, np.float32, ("batch", 6, 5, 7), 17),
    (INSTANCE, {}, np.float32, ("batch", 6, 11), 21),
    (INSTANCE, {}, np.float32, ("batch", 6, 2, 3, 2), 21),
]


def one_node(
    kind: str, attributes: dict[str, Any], dtype: type[np.generic], shape: tuple[int | str, ...], opset: int
) -> bytes:
    """A model of one normalisation of x."""
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    parameters = [
        from_array(np.linspace(first, 2, int(shape[1])).astype(dtype), name)
        for name, first in {"scale": 0.5, "shift": -1}.items()
    ]
    ends = [make_tensor_value_info(name, element, shape) for name in "xy"]
    node = make_node(kind, ["x", "scale", "shift"], ["y"], **attributes)
    graph = make_graph([node], "one", ends[:1], ends[1:], parameters)
    return bytes(make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=10).SerializeToString())


def run(model: bytes, feeds: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    return list(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds))


def operators(graph: Any) -> set[str]:
    """Of a graph and of those inside it."""
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return {node.op_type for node in graph.node}.union(*map(operators, inner))


def test_each_normalisation_is_the_same(subtests: pytest.Subtests) -> None:
    for kind, attributes, dtype, shape, opset in CASES:
        with subtests.test(kind=kind, attributes=attributes, dtype=dtype, shape=shape):
            before = one_node(kind, attributes, dtype, shape, opset)
            after = as_layer_norms(before)
            onnx.checker.check_model(onnx.load_from_string(after), full_check=True)
            assert operators(onnx.load_from_string(after).graph).isdisjoint({GROUP, INSTANCE})
            x = np.random.default_rng(0).normal(3, 2, (4, *map(int, shape[1:]))).astype(dtype)
            (found,), (wanted,) = (run(model, {"x": x}) for model in (after, before))
            assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 if dtype == np.float32 else 8e-3)


def test_scales_of_whole_groups_are_left_alone() -> None:
    """Those of opset 18, in which an export writes none."""
    node = one_node(GROUP, {"num_groups": 3}, np.float32, ("batch", 6, 5, 7), 18)
    assert operators(onnx.load_from_string(as_layer_norms(node)).graph) == {GROUP}


def test_stages_say_the_same(small_bundle: Bundle, clothes: npt.NDArray[np.uint8], subtests: pytest.Subtests) -> None:
    """With a loop and without."""
    for name, plan in {"fast": small_bundle.plan("fast"), "loop": REFERENCE}.items():
        with subtests.test(plan=name):
            before = build_stage(make_recipe(small_bundle, plan, "fp32"), list_stages(plan)[0])
            after = as_layer_norms(before)
            assert ("Loop" in operators(onnx.load_from_string(before).graph)) == (name == "loop")
            assert operators(onnx.load_from_string(after).graph).isdisjoint({GROUP, INSTANCE})
            feeds = {"image": clothes[:2, None]}
            for found, wanted in zip(run(after, feeds), run(before, feeds), strict=True):
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * float(np.abs(wanted).max()))
