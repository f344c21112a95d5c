"""Finds feature maps inside a network: those before its operators of another size, as MaxPool and Resize are."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from diffood.runtime.onnx import messages

SHRINKING = ("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean")
GROWING = ("ConvTranspose", "Resize")
SMALLEST = 2  # rows and columns of a map; what is 1x1 has been pooled
MOST = 4  # maps of a size, the last ones: networks side by side each have theirs


@dataclass(frozen=True)
class InnerMap:
    """A tensor [B, channels, height, width] inside a graph.

    Attributes:
        name: Of the tensor in its graph.
        channels: Number of channels.
        height: Rows.
        width: Columns.
    """

    name: str
    channels: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def find_inner_maps(graph: Any, operators: Collection[str]) -> tuple[InnerMap, ...]:
    """The maps that only these operators read, and make another size of, in the order in which they are computed.

    With SHRINKING what a classifier knows when it leaves a size; with GROWING what a UNet's decoder does. What a
    residual block reads again at the same size is not the end of it. None where the graph does not tell its shapes.
    """
    maps = {found.name: found for found in _maps(graph)}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def ends(inner: InnerMap) -> bool:
        """Whether all that read it are such operators, whose output is no map of the same size."""
        return all(
            node.op_type in operators and (node.output[0] not in maps or maps[node.output[0]].size != inner.size)
            for node in readers[inner.name]
        )

    found = [maps[name] for node in graph.node for name in node.output if name in maps and name in readers]
    found = [inner for inner in found if ends(inner)]

    def remaining(at: int) -> int:
        """How many maps of the same size there are from here on."""
        return [inner.size for inner in found[at:]].count(found[at].size)

    return tuple(inner for at, inner in enumerate(found) if remaining(at) <= MOST)


def _maps(graph: Any) -> Iterator[InnerMap]:
    """Every tensor [B, C, H, W] of floating point whose batch alone is free."""
    for value in graph.value_info:
        kind = value.type.tensor_type
        first, *sizes = kind.shape.dim or [None]
        free = first is not None and first.HasField("dim_param")
        if free and kind.elem_type in (messages.FLOAT, messages.FLOAT16) and len(sizes) == 3:
            channels, height, width = (size.dim_value for size in sizes)
            if channels and min(height, width) >= SMALLEST:
                yield InnerMap(value.name, channels, height, width)
