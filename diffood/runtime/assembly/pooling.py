"""What feature maps inside a network come to: mean and deviation of every channel, as one vector."""

from collections.abc import Mapping, Sequence

from diffood.runtime.method.witnesses.jump import unit
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import Value, row_aligned
from diffood.runtime.onnx.inner_maps import InnerMap


def pooled_length(maps: Sequence[InnerMap]) -> int:
    """Length of the vector of `pool_maps`."""
    return sum(2 * inner.channels for inner in maps)


def pool_maps(maps: Sequence[InnerMap], found: Mapping[str, Value]) -> Value:
    """Means and standard deviations of all channels, of unit length for each map, [B, pooled_length(maps)]."""
    pooled = [_pool(inner, found[inner.name]) for inner in maps]
    return pooled[0].builder.concat(pooled, axis=1)


def _pool(inner: InnerMap, value: Value) -> Value:
    builder, places = value.builder, inner.height * inner.width

    def mean_of(rows: Value) -> Value:
        return row_aligned(rows, places).reduce("ReduceSum", 2, keep=True) / float(places)

    rows = value.cast(messages.FLOAT).reshape(-1, inner.channels, places)
    mean = mean_of(rows)
    off = rows - mean
    both = builder.concat([mean, builder.node("Sqrt", mean_of(off * off))], axis=1)
    return unit(both.reshape(-1, 2 * inner.channels), 2 * inner.channels)
