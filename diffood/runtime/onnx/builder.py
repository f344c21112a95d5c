"""Writes one ONNX graph: tensors as values that know arithmetic, nodes, constants, and loops. Knows no method."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.runtime.onnx import messages

IR_VERSION = 10  # of opset 21; what ONNX Runtime 1.18 and newer read
PRODUCER = "diffood"
ALIGNED = 16  # float32 values: 64 bytes, at which tensors begin

_TYPES = {
    np.dtype(np.float32): messages.FLOAT,
    np.dtype(np.float16): messages.FLOAT16,
    np.dtype(np.int32): messages.INT32,
    np.dtype(np.int64): messages.INT64,
    np.dtype(np.bool_): messages.BOOL,
}
Size = int | str  # of a dimension; a name for one that is free


class Value:
    """A tensor of a graph that is being written. Numbers in arithmetic with it become float32 constants."""

    def __init__(self, builder: "GraphBuilder", name: str) -> None:
        self.builder, self.name = builder, name

    def __add__(self, other: "Value | float") -> "Value":
        return self._with("Add", other)

    def __sub__(self, other: "Value | float") -> "Value":
        return self._with("Sub", other)

    def __mul__(self, other: "Value | float") -> "Value":
        return self._with("Mul", other)

    def __truediv__(self, other: "Value | float") -> "Value":
        return self._with("Div", other)

    def __matmul__(self, other: "Value") -> "Value":
        return self._with("MatMul", other)

    def __neg__(self) -> "Value":
        return self.builder.node("Neg", self)

    def _with(self, kind: str, other: "Value | float") -> "Value":
        """A node of both, in the inner graph where one of them is the body of a loop."""
        inner = isinstance(other, Value) and other.builder.depth > self.builder.depth and other.builder
        return (inner or self.builder).node(kind, self, other)

    def cast(self, kind: int) -> "Value":
        """As another type."""
        return self.builder.node("Cast", self, to=kind)

    def reshape(self, *sizes: int) -> "Value":
        """In another shape; one size may be -1."""
        return self.builder.node("Reshape", self, self.builder.integers(sizes))

    def transpose(self, *axes: int) -> "Value":
        """With its axes in another order."""
        return self.builder.node("Transpose", self, perm=axes)

    def reduce(self, kind: str, *axes: int, keep: bool = False) -> "Value":
        """Reduced over axes by ONNX's ReduceSum, ReduceMean, ReduceMax, ReduceL1 or ReduceL2."""
        return self.builder.node(kind, self, self.builder.integers(axes), keepdims=int(keep))


class GraphBuilder:
    """One graph, or the body of a loop in it. Constants and weights of a body that it does not hold are the graph's."""

    def __init__(self, parent: "GraphBuilder | None" = None) -> None:
        self.graph = messages.Graph(name="body" if parent else PRODUCER)
        self.root: GraphBuilder = parent.root if parent else self
        self.depth: int = parent.depth + 1 if parent else 0
        self._names = itertools.count()
        self._scope = f"{self.fresh()}/" if parent else ""
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._held: set[str] = set()

    def fresh(self) -> str:
        """A name that no other tensor has."""
        return f"v{next(self.root._names)}"

    def input(self, name: str, kind: int, shape: Sequence[Size]) -> Value:
        """A tensor that the graph is given."""
        self.graph.input.append(_describe(name, kind, shape))
        return Value(self, name)

    def output(self, name: str, value: Value, kind: int, shape: Sequence[Size]) -> None:
        """Give a tensor out by this name."""
        self.graph.node.append(messages.Node(op_type="Identity", input=[value.name], output=[name]))
        self.graph.output.append(_describe(name, kind, shape))

    def constant(self, array: npt.NDArray[Any]) -> Value:
        """A constant, once for all that are equal."""
        array = np.asarray(array, order="C")
        known = self.root._constants
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in known:
            known[key] = Value(self.root, self.root.fresh())
            self.root.graph.initializer.append(make_tensor(known[key].name, array))
        return known[key]

    def integers(self, values: Sequence[int]) -> Value:
        """A constant int64 vector, as shapes and axes are."""
        return self.constant(np.array(values, np.int64))

    def hold(self, name: str, tensor: Any) -> str:
        """Take a weight into this graph, once however often that is asked for; returns what it is called here.

        A body holds its own: ONNX Runtime lays out the weights of a convolution anew, which makes a UNet a fifth
        faster, only where they are in the graph of the convolution. Weights in another file are the whole graph's.
        """
        holder = self.root if tensor.external_data else self
        name = holder._scope + name
        if name not in holder._held:
            holder._held.add(name)
            holder.graph.initializer.add().CopyFrom(tensor)
            holder.graph.initializer[-1].name = name
        return name

    def node(self, kind: str, *inputs: Value | float, outputs: int = 1, **attributes: Any) -> Value:
        """A node; of several outputs the first."""
        output = self.fresh()
        others = [self.fresh() for _ in range(outputs - 1)]
        self.graph.node.append(
            messages.Node(
                op_type=kind,
                input=[self._as_value(value).name for value in inputs],
                output=[output, *others],
                attribute=[_attribute(key, value) for key, value in attributes.items()],
            )
        )
        return Value(self, output)

    def concat(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Values one after the other; one alone as it is."""
        return values[0] if len(values) == 1 else self.node("Concat", *values, axis=axis)

    def loop(
        self, count: int, state: Sequence[Value], shape: Sequence[Size], step: Callable[..., Sequence[Value]]
    ) -> list[Value]:
        """What is left of float32 `state` after `count` times state = step(body, number, *state); number counts from 0.

        The body may use values of this graph. shape: of every tensor of the state.
        """
        body = GraphBuilder(self)
        number = body.input(self.fresh(), messages.INT64, ())
        going = body.input(self.fresh(), messages.BOOL, ())
        given = [Value(body, self.fresh()) for _ in state]
        for value in given:
            body.graph.input.append(_describe(value.name, messages.FLOAT, shape))
        left = step(body, number, *given)
        body.output(self.fresh(), going, messages.BOOL, ())
        for value in left:
            again = body.node("Identity", value)
            body.graph.output.append(_describe(again.name, messages.FLOAT, shape))
        inputs = [self.constant(np.array(count, np.int64)), self.constant(np.array(True)), *state]
        outputs = [self.fresh() for _ in state]
        self.graph.node.append(
            messages.Node(
                op_type="Loop",
                input=[value.name for value in inputs],
                output=outputs,
                attribute=[messages.Attribute(name="body", type=messages.GRAPH_ATTRIBUTE, g=body.graph)],
            )
        )
        return [Value(self, name) for name in outputs]

    def serialise(self, domains: dict[str, int]) -> bytes:
        """The finished model, for these versions of its operators by domain; without the constants nothing uses."""
        model = messages.Model(ir_version=IR_VERSION, producer_name=PRODUCER)
        model.graph.CopyFrom(self.graph)
        used = _used(model.graph)
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        _name_nodes(model.graph)
        for domain, version in sorted(domains.items()):
            model.opset_import.add(domain=domain, version=version)
        return bytes(model.SerializeToString(deterministic=True))

    def _as_value(self, value: Value | float) -> Value:
        return value if isinstance(value, Value) else self.constant(np.array(value, np.float32))


def fill_rows(value: Value, width: int, multiple: int) -> Value:
    """Rows [..., width] filled up with zeros to a multiple of so many values."""
    missing = -width % multiple
    if not missing:
        return value
    return value.builder.node("Pad", value, value.builder.integers([0, missing]), 0.0, value.builder.integers([-1]))


def row_aligned(value: Value, width: int) -> Value:
    """Rows [..., width] filled up with zeros to a multiple of ALIGNED values, for a sum over each.

    ONNX Runtime sums a row in an order that depends on where in memory it begins: without, the last bit of a sum would
    depend on the row's place in the batch.
    """
    return fill_rows(value, width, ALIGNED)


def make_tensor(name: str, array: npt.NDArray[Any]) -> Any:
    """A constant's message."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return messages.Tensor(name=name, dims=array.shape, data_type=_TYPES[array.dtype], raw_data=little.tobytes())


def inner_graphs(node: Any) -> list[Any]:
    """The graphs in a node's attributes."""
    graphs = []
    for attribute in node.attribute:
        graphs += [attribute.g] if attribute.type == messages.GRAPH_ATTRIBUTE else list(attribute.graphs)
    return graphs


def _name_nodes(graph: Any) -> None:
    """Name each node after its output: ONNX Runtime 1.20 names what it fuses after a node, and refuses a name twice."""
    for node in graph.node:
        node.name = next(filter(None, node.output))
        for inner in inner_graphs(node):
            _name_nodes(inner)


def _used(graph: Any) -> set[str]:
    """Names that a graph's nodes take and that it gives out, those of the graphs inside it among them."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for inner in inner_graphs(node):
            names |= _used(inner)
    return names


def _describe(name: str, kind: int, shape: Sequence[Size]) -> Any:
    """Name, type and shape of an input or output."""
    value = messages.ValueInfo(name=name)
    value.type.tensor_type.elem_type = kind
    value.type.tensor_type.shape.SetInParent()  # of a scalar too
    for size in shape:
        named = isinstance(size, str)
        value.type.tensor_type.shape.dim.add(**{"dim_param" if named else "dim_value": size})
    return value


def _attribute(name: str, value: int | Sequence[int]) -> Any:
    if isinstance(value, int):
        return messages.Attribute(name=name, type=messages.INT_ATTRIBUTE, i=value)
    return messages.Attribute(name=name, type=messages.INTS_ATTRIBUTE, ints=value)
