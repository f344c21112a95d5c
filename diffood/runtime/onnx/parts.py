"""A bundle's parts, classify, step, encode and decode, as functions that are written into a graph when called."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder, Value, inner_graphs

OLDEST_OPSET = 19  # ONNX Runtime up to 1.28 computes some graphs of opset 18 wrongly


class Part:
    """One proven graph. Calling it writes its nodes into another graph; its weights are there once.

    Attributes:
        name: Under which its weights are kept; parts of one name share them.
        inputs: Names of what it takes.
        domains: Versions of its operators by domain; "" is ONNX's own.
    """

    def __init__(self, name: str, model: bytes) -> None:
        """Read a serialised model. Raises ValueError for one that no export writes."""
        try:
            message = messages.Model.FromString(model)
        except DecodeError:
            raise ValueError("it is not an ONNX graph") from None
        if message.functions or message.graph.sparse_initializer:
            raise ValueError("it has functions or sparse weights, which no export writes")
        if not all(
            isinstance(name, str) for name in _names(message.graph)
        ):  # protobuf gives what is not UTF-8 as bytes
            raise ValueError("it has names that are not UTF-8")
        self.name, self.graph = name, message.graph
        own = ("", "ai.onnx")
        versions = [("" if entry.domain in own else entry.domain, entry.version) for entry in message.opset_import]
        self.domains = dict(versions)
        if len(self.domains) < len(versions):
            raise ValueError("it imports the operators of a domain twice")
        if (opset := self.domains.get("", OLDEST_OPSET)) < OLDEST_OPSET:
            raise ValueError(f"it is of opset {opset}, and ONNX Runtime may compute those below {OLDEST_OPSET} wrongly")
        weights = {tensor.name for tensor in message.graph.initializer}
        self.inputs = tuple(value.name for value in message.graph.input if value.name not in weights)

    def __call__(
        self, builder: GraphBuilder, feeds: Mapping[str, Value], inner: Iterable[str] = ()
    ) -> dict[str, Value]:
        """Write it for these inputs, of which it takes those it knows; its outputs by name, and tensors inside it."""
        known = {name: feeds[name].name for name in self.inputs}
        known |= {weight.name: builder.hold(self.name_of(weight.name), weight) for weight in self.graph.initializer}
        prefix = builder.fresh()

        def rename(name: str) -> str:
            return known.get(name, f"{prefix}/{name}") if name else ""

        for node in self.graph.node:
            builder.graph.node.append(_renamed(node, rename))
        return {name: Value(builder, rename(name)) for name in (*(value.name for value in self.graph.output), *inner)}

    def name_of(self, weight: str) -> str:
        """What a weight is called in graphs that use the part."""
        return f"{self.name}/{weight}"


def _names(graph: Any) -> Iterator[Any]:
    """Names of a graph's tensors, and of sizes of those that it takes and gives."""
    for tensor in graph.initializer:
        yield tensor.name
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (size.dim_param for size in value.type.tensor_type.shape.dim)
    for node in graph.node:
        yield from (node.op_type, node.domain, *node.input, *node.output)


def _renamed(node: Any, rename: Callable[[str], str]) -> Any:
    """A copy of a node with other names; in the graphs inside it too, whose own tensors get them as well."""
    made = messages.Node()
    made.CopyFrom(node)
    made.input[:] = [rename(name) for name in node.input]
    made.output[:] = [rename(name) for name in node.output]
    made.name = ""
    for graph in inner_graphs(made):
        _rename_graph(graph, rename)
    return made


def _rename_graph(graph: Any, rename: Callable[[str], str]) -> None:
    nodes = [_renamed(node, rename) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.ClearField("value_info")
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = rename(value.name)
