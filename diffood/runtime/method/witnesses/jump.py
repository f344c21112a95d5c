"""The paper's score: how far the classifier's answer moves when an image is noised and denoised."""

from diffood.runtime.method.witnesses.definition import Traces, WitnessDefinition
from diffood.runtime.onnx.builder import Value, row_aligned


def _moved(traces: Traces) -> Value:
    """Distance [T, R, B] between unit outputs: Liu et al., arXiv 2211.11255; l1 in their algorithm, l2 in a figure."""
    assert traces.origin is not None and traces.after is not None
    builder, before, after = traces.after.builder, unit(traces.origin, traces.width), unit(traces.after, traces.width)
    if traces.compare == "neighbour":
        earlier = builder.node("Slice", after, *map(builder.integers, ([0], [-1], [0])))
        one = builder.concat([builder.integers([1]), builder.node("Shape", after, start=1)])
        first = builder.node("Expand", before, one)
        before = builder.concat([first, earlier])
    return row_aligned(after - before, traces.width).reduce(f"Reduce{traces.norm.upper()}", 3)


def unit(vectors: Value, width: int) -> Value:
    """Vectors [..., width] divided by their L2 norms; an all-zero vector stays zero, as by torch's normalize."""
    length = row_aligned(vectors, width).reduce("ReduceL2", -1, keep=True)
    return vectors / vectors.builder.node("Max", length, 1e-12)


JUMP = WitnessDefinition(
    "jump",
    "How far the classifier's answer moves when the image is noised and denoised: the paper's score.",
    classifies_denoised=True,
    of_denoised=_moved,
)
