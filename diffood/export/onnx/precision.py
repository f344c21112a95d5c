"""Types a saved graph computes in, and the largest error of each precision against FP32."""

from collections import Counter
from pathlib import Path

import onnx

from diffood.errors import ExportError
from diffood.runtime.bundle.bundle import Precision

# Largest difference from FP32, relative to the largest output, above which an export fails. fp32: rounding; fp16: ten
# times what halved UNets show at every time; int8: a graph with broken scales, the parity gate judges the others.
LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.5}
MULTIPLYING = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # where nearly all time goes
# Constants that resize an image, by the last word of their names. Products with them are not layers: they stay FP32.
RESIZING = ("resize_rows", "resize_columns")
FEWEST_COUNTED = 2  # dimensions; a bias or scale has one and is not counted

_WANTED: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


def count_weights(path: Path) -> dict[str, int]:
    """Count weight values by type: initialisers of two or more dimensions, e.g. {"float16": 687000}."""
    counts: Counter[str] = Counter()
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        if len(tensor.dims) >= FEWEST_COUNTED and not _is_of_resizing(tensor.name):
            size = 1
            for dim in tensor.dims:
                size *= dim
            counts[_type_name(tensor.data_type)] += size
    return dict(sorted(counts.items()))


def count_products(path: Path) -> dict[str, int]:
    """Count multiplying nodes by the type they compute in; one fed by DequantizeLinear on both sides is int8."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    graph = model.graph
    types = {tensor.name: _type_name(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        types[value.name] = _type_name(value.type.tensor_type.elem_type)
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    counts: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in MULTIPLYING and not resizes(node):
            sides = node.input[:2]
            counts["int8" if set(sides) <= dequantised else types.get(sides[0], "unknown")] += 1
    return dict(sorted(counts.items()))


def resizes(node: onnx.NodeProto) -> bool:
    """Whether a node resizes an image (graphs/modules.py) and is not a layer of a model."""
    return any(map(_is_of_resizing, node.input))


def _is_of_resizing(name: str) -> bool:
    return name.rpartition(".")[2] in RESIZING


def prove_types(path: Path, precision: Precision) -> dict[str, int]:
    """Check that the graph computes in its precision; returns count_weights. Raises ExportError naming what does not.

    fp32 and fp16: every multiplying node. int8: at least one, for the search may leave sensitive ones in FP32.
    """
    products = count_products(path)
    wanted = _WANTED[precision]
    others = {kind: count for kind, count in products.items() if kind != wanted}
    if products and (wanted not in products or (others and precision != "int8")):
        raise ExportError(
            f"{path.name} should compute in {wanted}, but of its {sum(products.values())} multiplying nodes "
            f"{', '.join(f'{count} are {kind}' for kind, count in others.items())}. Use another torch version."
        )
    return count_weights(path)


def _type_name(elem_type: int) -> str:
    """Name one of ONNX's types as numpy does: 1 is float32."""
    return "float32" if elem_type == onnx.TensorProto.FLOAT else onnx.TensorProto.DataType.Name(elem_type).lower()
