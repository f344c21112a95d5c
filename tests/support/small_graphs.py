"""Small classifiers as ONNX graphs of many shapes, written by hand as exporters do, for several tests."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES, FEATURES, SIDE = 5, 6, 12


def small_graph(
    head: Sequence[onnx.NodeProto] | None = None,
    *,
    outputs: Sequence[str] = ("scores",),
    shape: Sequence[int | str | None] = ("N", 3, SIDE, SIDE),
    opset: int = 17,
    ir_version: int = 8,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """images -> Conv -> Relu `maps` [N, 6, 12, 12] -> pooled, `flat` [N, 6] -> `head`, a Gemm to `scores` [N, 5].

    `head` may use the weights linear [5, 6], bias [5], point [5, 6, 1, 1] and turned [6, 5]. ir_version 3 lists weights
    among the inputs, as old exporters do.
    """
    draw = np.random.default_rng(0)
    last = shape[-1] == 3
    weights = {
        "stem": draw.normal(size=(FEATURES, 3, 3, 3)),
        "linear": draw.normal(size=(CLASSES, FEATURES)),
        "bias": draw.normal(size=CLASSES),
    }
    weights |= {"point": weights["linear"][:, :, None, None], "turned": weights["linear"].T}
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    nodes = [helper.make_node("Transpose", ["images"], ["turned_images"], perm=[0, 3, 1, 2])] if last else []
    nodes += [
        helper.make_node("Conv", ["turned_images" if last else "images", "stem"], ["mapped"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["mapped"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        *(head or [helper.make_node("Gemm", ["flat", "linear", "bias"], ["scores"], transB=1)]),
    ]
    inputs = [helper.make_tensor_value_info("images", kind, shape)]
    if ir_version == 3:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in initializers]
    graph = helper.make_graph(
        nodes,
        "small",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None]) for name in outputs],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
