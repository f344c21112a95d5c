"""What the nodes of a graph in a bundle may be: operators that compute each output once, from bounded constants.

A graph is a program for an engine, which has no limits of its own: Loop may count to 2^62, functions may call each
other in numbers that double, and one constant may ask for terabytes. So the list has what exports write, for models of
all kinds, and no loop, branch, sequence, text or random number. Judges the bytes of a file, before a parser has them.
"""

import collections
import itertools
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from diffood.runtime.bundle.external_data import read_fields, read_numbers

_NAMES = """
Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip Concat Constant
ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul
Neg Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal ReduceL1
ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
Reshape Resize RotaryEmbedding Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose
Trilu Unsqueeze Upsample Where Xor
"""
ALLOWED = frozenset(_NAMES.split())
"""All operators that the graphs of a bundle may use, of ONNX's own domain; `export` refuses models that need others."""
OWN_DOMAINS = (b"", b"ai.onnx")
MOST_NODES = 50_000  # the largest UNets have some thousands
MOST_WEIGHTS = 100_000  # likewise; the memory of a protobuf parser is some hundred bytes each
LONGEST_NAME = 2**12  # bytes of a node or a tensor; exporters join those of modules, and engines copy each many times
LARGEST_SHAPE = 2**28  # values of a tensor whose shape a constant gives: 1 GiB in float32
LARGEST_ATTRIBUTE = 2**16  # a stride, a padding, an axis
_SHAPE_INPUTS: Mapping[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (3,),
    "Tile": (1,),
}
# Field numbers of onnx.proto.
_GRAPH, _FUNCTIONS = 7, 25  # of ModelProto
_NODE, _INITIALIZER = 1, 5  # of GraphProto
_INPUT, _OUTPUT, _NAME, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7  # of NodeProto
_INT, _TENSOR, _INNER, _INTS, _INNERS = 3, 5, 6, 8, 11  # of AttributeProto
_INT32_DATA, _INT64_DATA, _TENSOR_NAME, _RAW_DATA, _DATA_TYPE = 5, 7, 8, 9, 2  # of TensorProto
_FORMATS = {6: "<i", 7: "<q"}  # of int32 and int64 in raw data
_SHOWN = 40  # letters of a name in a message
_MOST_BYTES = 512  # of a constant that is a shape: 64 numbers

Constants = dict[bytes, tuple[int, ...]]
_Field = int | memoryview


def find_forbidden(model: bytes) -> str:
    """What a serialised ONNX model has that no graph of a bundle may have, as the end of a sentence; "" if nothing.

    Raises ValueError if it is not a protobuf message.
    """
    graphs = []
    for number, value in read_fields(memoryview(model)):
        if number == _FUNCTIONS:
            return "has functions of its own, which no export writes"
        if number == _GRAPH and isinstance(value, memoryview):
            graphs.append(value)
    constants: Constants = {}
    nodes: list[_Node] = []
    weights = 0
    for number, value in itertools.chain.from_iterable(map(read_fields, graphs)):
        if isinstance(value, memoryview) and number == _NODE:
            nodes.append(_Node.read(value))
        elif isinstance(value, memoryview) and number == _INITIALIZER:
            weights += 1
            _read_constant(value, constants)
        if len(nodes) > MOST_NODES or weights > MOST_WEIGHTS:
            return f"has more than {MOST_NODES} nodes or {MOST_WEIGHTS} weights"
    problems = [problem for node in nodes if (problem := _problem_of_node(node, constants))]
    return next(iter(problems), "") or next(filter(None, (_problem_of_shape(node, constants) for node in nodes)), "")


@dataclass(frozen=True)
class _Node:
    """What is read of a node; `attributes` are messages."""

    kind: str
    domain: bytes
    inputs: list[bytes]
    outputs: list[bytes]
    attributes: list[memoryview]

    @classmethod
    def read(cls, node: memoryview) -> "_Node":
        fields = collections.defaultdict[int, list[memoryview]](list)
        for number, value in read_fields(node):
            if isinstance(value, memoryview):
                fields[number].append(value)
        kind, domain = (bytes(fields[number][-1]) if fields[number] else b"" for number in (_OP_TYPE, _DOMAIN))
        names = itertools.chain(*(fields[number] for number in (_INPUT, _OUTPUT, _NAME)))
        if (longest := max(map(len, names), default=0)) > LONGEST_NAME:
            raise ValueError(f"a name of {longest} bytes")
        inputs, outputs = (list(map(bytes, fields[number])) for number in (_INPUT, _OUTPUT))
        return cls(_shown(kind), domain, inputs, outputs, fields[_ATTRIBUTE])


def _shown(name: bytes) -> str:
    return name[:_SHOWN].decode("ascii", "replace")


def _problem_of_node(node: _Node, constants: Constants) -> str:
    """What is wrong with a node itself; the value of a Constant is added to `constants`."""
    if node.domain not in OWN_DOMAINS:
        return f"has the operator {node.kind!r} of the domain {_shown(node.domain)!r}, which is not ONNX's own"
    if node.kind not in ALLOWED:
        return f"has the operator {node.kind!r}, which the graphs of a bundle may not use"
    problems = (_problem_of_attribute(attribute, node, constants) for attribute in node.attributes)
    return next(filter(None, problems), "")


def _problem_of_shape(node: _Node, constants: Constants) -> str:
    for place in _SHAPE_INPUTS.get(node.kind, ()):
        shape = constants.get(node.inputs[place], ()) if place < len(node.inputs) else ()
        if math.prod(max(1, abs(size)) for size in shape) > LARGEST_SHAPE:
            return f"has a {node.kind} of shape {list(shape)[:_SHOWN]}, of more than {LARGEST_SHAPE} values"
    return ""


def _problem_of_attribute(attribute: memoryview, node: _Node, constants: Constants) -> str:
    numbers: list[int] = []
    for number, value in read_fields(attribute):
        if number in (_INNER, _INNERS):
            return f"has a graph inside a {node.kind}"
        if number == _TENSOR and isinstance(value, memoryview) and node.kind == "Constant":
            _read_constant(value, constants, b"".join(node.outputs[:1]))
        elif number in (_INT, _INTS):
            numbers.extend(itertools.islice(map(_signed, read_numbers(value)), _MOST_BYTES + 1))
            if len(numbers) > _MOST_BYTES:
                return f"has an attribute of more than {_MOST_BYTES} numbers, of a {node.kind}"
    if node.kind == "Constant":
        constants |= {output: tuple(numbers) for output in node.outputs if numbers}
    elif (
        node.kind != "Slice" and (largest := max(map(abs, numbers), default=0)) > LARGEST_ATTRIBUTE
    ):  # its end may be 2^63
        return f"has {largest} where at most {LARGEST_ATTRIBUTE} is allowed, in an attribute of a {node.kind}"
    return ""


def _read_constant(tensor: memoryview, constants: Constants, name: bytes = b"") -> None:
    """Note the numbers of a tensor that may be a shape."""
    kind = 0
    numbers: list[int] = []
    raw: _Field = memoryview(b"")
    for number, value in read_fields(tensor):
        if number == _RAW_DATA:
            raw = value
        elif number == _TENSOR_NAME and isinstance(value, memoryview):
            if len(value) > LONGEST_NAME:
                raise ValueError(f"a name of {len(value)} bytes")
            name = name or bytes(value)
        elif number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number in (_INT32_DATA, _INT64_DATA):
            numbers.extend(itertools.islice(map(_signed, read_numbers(value)), _MOST_BYTES))
            if len(numbers) > _MOST_BYTES:
                return
    layout = _FORMATS.get(kind)
    if layout and isinstance(raw, memoryview) and len(raw) <= _MOST_BYTES and not len(raw) % struct.calcsize(layout):
        numbers.extend(found for (found,) in struct.iter_unpack(layout, raw))
    if layout and numbers:
        constants[name] = tuple(numbers)


def _signed(number: int) -> int:
    """What a varint says in two's complement."""
    return number - 2**64 if number >= 2**63 else number
