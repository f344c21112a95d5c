"""Group and instance normalisation as LayerNormalization, which ONNX Runtime computes by one kernel on a GPU.

GroupNormalization is written out there as two dozen nodes that each pass over the image, InstanceNormalization calls
cuDNN's training. Here groups of channels become rows, over whose values scale and shift are spread.
"""

from typing import Any

import numpy as np

from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import inner_graphs, make_tensor

SCALES_CHANNELS = 21  # from this opset on GroupNormalization scales channels; before, whole groups
ROWS = 2  # axis of [N, groups, values] at which a row begins


def as_layer_norms(model: bytes) -> bytes:
    """The same model with these nodes written so, those in the bodies of its loops too."""
    message = messages.Model.FromString(model)
    version = max(entry.version for entry in message.opset_import if entry.domain in ("", "ai.onnx"))
    kinds = {"InstanceNormalization"} | ({"GroupNormalization"} if version >= SCALES_CHANNELS else set())
    _rewrite(message.graph, kinds)
    return bytes(message.SerializeToString(deterministic=True))


def _rewrite(graph: Any, kinds: set[str]) -> None:
    nodes: list[Any] = []
    for node in graph.node:
        for inner in inner_graphs(node):
            _rewrite(inner, kinds)
        nodes += _written(graph, node) if node.op_type in kinds and not node.domain else [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _written(graph: Any, node: Any) -> list[Any]:
    """The nodes that compute what one did; their constants are added to its graph."""
    (x, *parameters), (y,) = node.input, node.output
    given = {attribute.name: attribute for attribute in node.attribute}
    groups = given["num_groups"].i if "num_groups" in given else 0  # 0: as many as there are channels
    nodes: list[Any] = []

    def constant(name: str, *values: int) -> str:
        graph.initializer.append(make_tensor(f"{y}/{name}", np.array(values, np.int64)))
        return f"{y}/{name}"

    def add(kind: str, name: str, *inputs: str, **integers: int) -> str:
        attributes = [
            messages.Attribute(name=key, type=messages.INT_ATTRIBUTE, i=value) for key, value in integers.items()
        ]
        output = f"{y}/{name}" if name else y
        nodes.append(messages.Node(op_type=kind, name=output, input=inputs, output=[output], attribute=attributes))
        return output

    by_group, by_channel = constant("by_group", 0, groups, -1), constant("by_channel", 1, -1, 1)
    values = add("ReduceProd", "values", add("Shape", "sizes", x, start=2))
    spread = add("Concat", "spread", constant("ones", 1, 1), values, axis=0)
    rows = [
        add(
            "Reshape",
            f"row{index}",
            add("Expand", f"all{index}", add("Reshape", f"each{index}", name, by_channel), spread),
            by_group,
        )
        for index, name in enumerate(parameters)
    ]
    normed = add("LayerNormalization", "normed", add("Reshape", "grouped", x, by_group), *rows, axis=ROWS)
    nodes[-1].attribute.extend([given["epsilon"]] if "epsilon" in given else [])
    add("Reshape", "", normed, add("Shape", "shape", x))
    return nodes
