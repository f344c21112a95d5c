"""Finds, in an ONNX graph, the logits and what goes into its last layer. Runs nothing."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from diffood.errors import ExportError

Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype]]

PRODUCTS = ("Gemm", "MatMul", "Conv")
PROBABILITIES = ("Softmax", "LogSoftmax", "Sigmoid")


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


def find_logits(model: onnx.ModelProto, named: str | None, outputs: Shapes) -> tuple[str, str]:
    """The tensor of the logits, and words for it. outputs: those of the graph, for two images.

    The output called so, or the only one of shape [2, K]; where that is of probabilities, what they are made of.
    Raises ExportError naming the outputs where it is not clear.
    """
    if named is not None:
        _require_tensor(model, named, "--logits-output")
        return named, f"{named}, as named"
    able = [name for name, (shape, _) in outputs.items() if len(shape) == 2 and shape[0] == 2 and shape[1] > 1]
    if "logits" in able:
        able = ["logits"]
    if len(able) != 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, (shape, _) in outputs.items())
        raise ExportError(
            f"It is not clear which output holds the logits, [batch, classes]; for 2 images there are: {listed}. "
            "Name it by --logits-output."
        )
    made = _producers(model)
    node = made.get(able[0])
    while node is not None and node.op_type in ("Identity", "Cast"):
        node = made.get(node.input[0])
    if node is not None and node.op_type in PROBABILITIES:
        return node.input[0], f"{node.input[0]}, of which its last {node.op_type} makes probabilities"
    return able[0], f"{able[0]}, its output [batch, classes]"


def find_head(model: onnx.ModelProto, logits: str, named: str | None) -> OnnxHead:
    """What goes into the product nearest to the logits, of those with weights. ExportError where there is none."""
    made = _producers(model)
    if named is not None:
        _require_tensor(model, named, "--features-output")
        return OnnxHead(named, f"{named}, as named", "")
    fixed = _constants(model)
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
    made = _producers(model)
    if name not in made:
        near = ", ".join(list(made)[-8:])
        raise ExportError(f"{option} names {name!r}, which no node of the graph produces; its last tensors are {near}.")


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output if name}


def _constants(model: onnx.ModelProto) -> set[str]:
    """Tensors that are the same for every image: weights, and what is made of weights alone."""
    fixed = {tensor.name for tensor in model.graph.initializer} | {""}
    for node in model.graph.node:  # sorted, which the checker verified
        if all(name in fixed for name in node.input):
            fixed.update(node.output)
    return fixed
