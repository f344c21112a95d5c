"""Finds, in an ONNX graph, the logits and what goes into its last layer. Runs nothing."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from diffood.errors import ExportError
from diffood.export.sources.classifiers.onnx_probabilities import (
    find_constants,
    find_probability_source,
    find_producers,
)

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype]]

PRODUCTS = ("Gemm", "MatMul", "Conv")


@dataclass(frozen=True)
class OnnxHead:
    """Where the features of a graph are.

    Attributes:
        features: The tensor that goes into the last layer.
        words: How it was found, for the user.
        layer: Operator of the last layer; "" where it is not known.
    """

    features: str
    words: str
    layer: str

    def positions(self, rank: int) -> list[int]:
        """The axes over which a mean is taken, so that [B, D] is left of a tensor with so many axes."""
        channels_last = self.layer in ("Gemm", "MatMul") or (not self.layer and rank == 3)  # [B, tokens, D]
        return list(range(1, rank - 1)) if channels_last else list(range(2, rank))


@dataclass(frozen=True)
class OnnxLogits:
    """Where the logits of a graph are.

    Attributes:
        tensor: Their tensor.
        words: How it was found, for the user.
        output: The output that holds probabilities made of them; "" where it holds the logits themselves.
    """

    tensor: str
    words: str
    output: str = ""


def find_logits(model: onnx.ModelProto, named: str | None, outputs: Shapes) -> OnnxLogits:
    """The tensor of the logits. outputs: those of the graph, for two images.

    The output called so, or the only one of shape [2, K]; where that is of probabilities, what they are made of.
    Raises ExportError naming the outputs where it is not clear.
    """
    if named is not None:
        _require_tensor(model, named, "--logits-output")
        return OnnxLogits(named, f"{named}, as named")
    able = [name for name, (shape, _) in outputs.items() if count_classes(shape)]
    if "logits" in able:
        able = ["logits"]
    if len(able) != 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, (shape, _) in outputs.items())
        raise ExportError(
            f"It is not clear which output holds the logits, [batch, classes]; for 2 images there are: {listed}. "
            "Name it by --logits-output."
        )
    made = find_probability_source(model, able[0])
    if made is None:
        return OnnxLogits(able[0], f"{able[0]}, its output [batch, classes]")
    if not made.ordered:
        raise ambiguous_logits(able[0], made.tensor)
    return OnnxLogits(made.tensor, f"{made.tensor}, of which its last {made.operator} makes probabilities", able[0])


def count_classes(shape: tuple[int, ...]) -> int:
    """Classes of a tensor of this shape for two images: K of [2, K] or [2, K, 1, 1], from 2; 0 for other shapes."""
    classes = math.prod(shape[1:])
    return classes if len(shape) > 1 and shape[0] == 2 and classes > 1 and max(shape[1:]) == classes else 0


def ambiguous_logits(output: str, tensor: str) -> ExportError:
    """The error for probabilities whose logits are not plainly one tensor in the same order."""
    return ExportError(
        f"{output} holds probabilities, and {tensor}, which they are made of, does not have the same classes one by "
        "one. Name the logits by --logits-output."
    )


def find_head(model: onnx.ModelProto, logits: str, named: str | None) -> OnnxHead:
    """What goes into the product nearest to the logits, of those with weights. ExportError where there is none."""
    made = find_producers(model)
    if named is not None:
        _require_tensor(model, named, "--features-output")
        return OnnxHead(named, f"{named}, as named", "")
    fixed = find_constants(model)
    waiting, seen = deque([logits]), {logits}
    while waiting:
        node = made.get(waiting.popleft())
        if node is None:
            continue
        if node.op_type in PRODUCTS:
            free = [name for name in node.input[:2] if name not in fixed]
            if len(free) == 1:  # with two it is not a layer, but attention for example
                return OnnxHead(free[0], f"{free[0]}, what goes into its last {node.op_type}", node.op_type)
        waiting.extend(name for name in node.input if name not in seen and name not in fixed)
        seen.update(node.input)
    raise ExportError(
        f"No layer with weights (Gemm, MatMul, Conv) leads to the logits {logits}: name the tensor of the features by "
        "--features-output."
    )


def _require_tensor(model: onnx.ModelProto, name: str, option: str) -> None:
    made = find_producers(model)
    if name not in made:
        near = ", ".join(list(made)[-8:])
        raise ExportError(f"{option} names {name!r}, which no node of the graph produces; its last tensors are {near}.")
