"""Halves an ONNX graph by ONNX Runtime's converter: its layers in FP16, what is before and after them in FP32."""

import contextlib
import sys

import onnx
import onnx_ir

from diffood.errors import ExportError
from diffood.export.onnx.precision import MULTIPLYING, resizes

SUMMING = ("InstanceNormalization",)  # sums of squares over an image, which can exceed FP16


def halve(model: onnx.ModelProto, keep: list[str] | None = None) -> onnx.ModelProto:
    """The graph in FP16 inside, its inputs and outputs FP32. keep: names of nodes that stay FP32.

    Raises ExportError where the converter fails.
    """
    before = list(sys.path)
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    finally:
        sys.path[:] = before  # the package puts its folder there, with modules of common names in it
    try:
        with contextlib.redirect_stdout(None):
            converted = convert_float_to_float16(model, keep_io_types=True, node_block_list=keep)
        _drop_roundings(converted)
        halved = onnx_ir.from_proto(converted)
        halved.graph.sort()  # the converter puts its casts last
        made: onnx.ModelProto = onnx_ir.to_proto(halved)
        made.graph.ClearField("value_info")  # its types are those from before
    except Exception as error:
        raise ExportError(
            f"ONNX Runtime cannot halve the graph ({type(error).__name__}: {error}): export without fp16."
        ) from None
    return made


def name_outside_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes before the first layer and after the last; nodes without a name are given one.

    There images are prepared, times embedded and steps updated, in which FP16 would lose what scores are made of.
    """
    graph = model.graph
    fixed = {tensor.name for tensor in graph.initializer} | {""}
    for index, node in enumerate(graph.node):
        node.name = node.name or f"node_{index}"
        if all(name in fixed for name in node.input):
            fixed.update(node.output)
    layers = {node.name for node in graph.node if node.op_type in MULTIPLYING and not resizes(node)}
    after: set[str] = set()  # tensors that depend on a layer
    follows = set(layers)
    for node in graph.node:
        if node.name in layers or after & set(node.input):
            after.update(node.output)
            follows.add(node.name)
    before: set[str] = set()  # tensors that a layer depends on
    leads = set(layers)
    for node in reversed(graph.node):
        if node.name in layers or before & set(node.output):
            before.update(name for name in node.input if name not in fixed)
            leads.add(node.name)
    inside = (follows & leads) - {node.name for node in graph.node if node.op_type in SUMMING}
    return [node.name for node in graph.node if node.name not in inside and not fixed.issuperset(node.output)]


def _drop_roundings(model: onnx.ModelProto) -> None:
    """Take out FP32 values that are cast to FP16 and back, which the converter does to inputs of nodes it keeps."""
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        source = made.get(node.input[0]) if _casts_to(node, onnx.TensorProto.FLOAT) else None
        if source is not None and _casts_to(source, onnx.TensorProto.FLOAT16):
            node.op_type = "Identity"
            node.input[0] = source.input[0]
            node.ClearField("attribute")
    wanted = {value.name for value in graph.output} | {name for node in graph.node for name in node.input}
    unused = [node for node in graph.node if node.op_type == "Cast" and not wanted & set(node.output)]
    for node in unused:
        graph.node.remove(node)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(entry.name == "to" and entry.i == kind for entry in node.attribute)
