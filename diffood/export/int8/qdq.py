"""INT8 in an ONNX graph: ranges measured on real inputs, and QuantizeLinear / DequantizeLinear pairs put in.

Symmetric int8 on both sides of a product, one scale a tensor for activations, one a channel for weights; zero points
are 0. What goes into a product is rounded, and what comes out of a convolution, since ONNX Runtime has an int8 kernel
for a convolution only where its output is int8 too (without, it computes in FP32, after rounding: slower than no int8
at all). What a sum or a normalisation reads is not rounded, so the image that the update carries on stays FP32.
onnxruntime.quantization has no such placement: it rounds a tensor for all that read it, x included. A bias stays FP32,
since TensorRT refuses an int32 DequantizeLinear; ONNX Runtime rounds it when it loads the graph, and moves int8 to the
uint8 its x86 kernels want.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from diffood.export.int8.states import States
from diffood.export.onnx.precision import resizes

QUANTISABLE = ("Conv", "Gemm", "MatMul")  # not ConvTranspose, whose channels are on another axis: untried
# Nodes that only move values, which ONNX Runtime runs in int8 where a pair stands on both sides of them. Where there is
# none after one, it inserts its own, which it cannot move to uint8 (since 1.26, issue 25526): the graph does not load.
MOVING = ("MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
MATRIX = 2  # dimensions
LARGEST = 127  # of a symmetric int8; -128 is not used
BINS = 2048  # of a histogram of magnitudes; 16 a step of int8
# Share of an activation's magnitudes that int8 represents; the others are clipped. Measured on the zoo's scores, in-
# distribution and out: showing all moves those in distribution almost twice as far, and the clip of least squared error
# (or of least entropy, at ten times the work) those out of distribution, whose activations are larger than any
# calibrated on.
SHOWN = 0.9999
SMALLEST_SHARE = 2.0**-20  # of the largest scale of a layer; weights below are as good as zero

Clips = Mapping[str, float]


def list_products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes that can be quantised, in the graph's order. A node goes by the name of its output.

    An activation comes first, then a weight of a Conv, a matrix, or a second activation. A Conv whose output is read
    twice is none: ONNX Runtime leaves a rounded tensor with two readers int8, and a Conv with uint8 on one side and
    int8 on the other has no kernel.
    """
    weights = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(value.name for value in model.graph.output)
    return [
        node
        for node in model.graph.node
        if node.op_type in QUANTISABLE
        and node.input[0] not in weights
        and not resizes(node)
        and (readers[node.output[0]] == 1 if node.op_type == "Conv" else weights.get(node.input[1], MATRIX) == MATRIX)
    ]


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Run a model in memory on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about the search's own graphs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the search keeps several open
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def measure_clips(model: onnx.ModelProto, batches: Sequence[States]) -> dict[str, float]:
    """Largest magnitude that int8 represents, for every activation that enters a product or leaves a Conv.

    A share SHOWN of the magnitudes recorded lies within it, by a histogram.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    products = list_products(model)
    wanted = {name: None for node in products for name in node.input[:2] if name not in weights}
    wanted |= {node.output[0]: None for node in products if node.op_type == "Conv"}
    watch = _watch(model, list(wanted))
    top = dict.fromkeys(wanted, 0.0)
    for batch in batches:
        for name, value in watch(batch).items():
            top[name] = max(top[name], float(np.abs(value).max()))
    counts = {name: np.zeros(BINS) for name in wanted}
    for batch in batches:
        for name, value in watch(batch).items():
            counts[name] += np.histogram(np.abs(value), BINS, (0, top[name] or 1.0))[0]
    return {name: _clip(top[name], counts[name]) for name in wanted}


def count_multiplications(model: onnx.ModelProto, state: States) -> dict[str, int]:
    """Multiplications of every product for the given rows, by the name of its output."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    products = list_products(model)
    left = [node.input[0] for node in products if node.op_type != "Conv"]
    values = _watch(model, list(dict.fromkeys([*left, *(node.output[0] for node in products)])))(state)

    def terms(node: onnx.NodeProto) -> int:
        return math.prod(weights[node.input[1]][1:]) if node.op_type == "Conv" else values[node.input[0]].shape[-1]

    return {node.output[0]: values[node.output[0]].size * terms(node) for node in products}


def _watch(model: onnx.ModelProto, names: Sequence[str]) -> Callable[[States], dict[str, npt.NDArray[Any]]]:
    """A function that gives the values of these tensors, which may be inputs of the graph, for some states."""
    given = {value.name for value in model.graph.input}
    asked = [name for name in names if name not in given]
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in asked if name not in known)
    session = open_session(watched)

    def values(batch: States) -> dict[str, npt.NDArray[Any]]:
        found = zip(asked, session.run(asked, fit_inputs(model, batch)), strict=True)
        return {name: batch.inputs[name] for name in names if name in given} | dict(found)

    return values


def fit_inputs(model: onnx.ModelProto, batch: States) -> dict[str, npt.NDArray[np.generic]]:
    """Those of the recorded inputs that this graph takes."""
    return {value.name: batch.inputs[value.name] for value in model.graph.input}


def _clip(top: float, counts: npt.NDArray[np.float64]) -> float:
    if top == 0:
        return 1.0  # always zero: any scale represents it
    within = np.cumsum(counts) / counts.sum()
    return float((np.searchsorted(within, SHOWN) + 1) * top / BINS)


def insert_pairs(model: onnx.ModelProto, clips: Clips, chosen: Collection[str]) -> onnx.ModelProto:
    """Copy a model, with the products named in `chosen` in int8.

    Every product has a pair of its own for an activation, also where several read one tensor: ONNX Runtime moves a
    pair to uint8 only where one node reads it. What is rounded behind a convolution is rounded, to the same values,
    behind every node that moves it too.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    done: dict[tuple[str, int], str] = {}
    shown: dict[str, float] = {}  # outputs that are rounded, and their clips

    def put_in(new: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> str:
        nodes.extend(new)
        graph.initializer.extend(constants)
        return str(new[-1].output[0])

    for node in list(graph.node):
        out = node.output[0]
        if node.op_type == "Conv" and out in chosen:
            shown[out] = clips[out]
        elif node.op_type in MOVING and node.input[0] in shown:
            shown[out] = shown[node.input[0]]
        for side in (0, 1) if out in chosen else ():
            name = node.input[side]
            if name in weights:
                key = name, _channel_axis(node, weights[name])
                if key not in done:
                    done[key] = put_in(*_constant(weights[name], key[1], len(done)))
                node.input[side] = done[key]
            else:
                node.input[side] = put_in(*_pair(name, clips[name], f"{out}_{side}"))
        nodes.append(node)
        if out in shown:
            node.output[0] = f"{out}_exact"
            put_in(*_pair(node.output[0], shown[out], out))
            nodes[-1].output[0] = out
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return quantised


def _channel_axis(node: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    """Axis of a weight that becomes the product's channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
    return len(weight.dims) - 1


def _pair(name: str, clip: float, prefix: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Round an activation to int8 and back."""
    scale, zero, rounded, out = (f"{prefix}_int8_{part}" for part in ("scale", "zero", "rounded", "out"))
    nodes = [
        helper.make_node("QuantizeLinear", [name, scale, zero], [rounded], f"{prefix}_quantize"),
        helper.make_node("DequantizeLinear", [rounded, scale, zero], [out], f"{prefix}_dequantize"),
    ]
    return nodes, [
        numpy_helper.from_array(np.array(clip / LARGEST, np.float32), scale),
        numpy_helper.from_array(np.array(0, np.int8), zero),
    ]


def _constant(tensor: onnx.TensorProto, axis: int, number: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Keep a weight as int8, with a scale for each channel."""
    weight = numpy_helper.to_array(tensor).astype(np.float64)
    others = tuple(other for other in range(weight.ndim) if other != axis)
    scales = np.abs(weight).max(axis=others, keepdims=True) / LARGEST
    scales = np.maximum(scales, (scales.max() or 1.0) * SMALLEST_SHARE)
    scales = scales.astype(np.float32)
    values = np.clip(np.rint(weight / scales), -LARGEST, LARGEST).astype(np.int8)
    prefix = f"{tensor.name}_int8_{number}"
    scale, zero, rounded, out = (f"{prefix}_{part}" for part in ("scale", "zero", "values", "out"))
    node = helper.make_node("DequantizeLinear", [rounded, scale, zero], [out], f"{prefix}_dequantize", axis=axis)
    return [node], [
        numpy_helper.from_array(values, rounded),
        numpy_helper.from_array(scales.reshape(-1), scale),
        numpy_helper.from_array(np.zeros(scales.size, np.int8), zero),
    ]
