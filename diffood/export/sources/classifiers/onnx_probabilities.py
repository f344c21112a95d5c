"""Finds, in an ONNX graph, what probabilities are made of, through nodes that move or scale values. Runs nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

# An output of these is a probability, its logarithm, or in proportion to one.
PROBABILITIES = ("Softmax", "LogSoftmax", "Sigmoid", "Exp")
MOVING = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Clip", "Log")
POOLING = ("GlobalAveragePool", "AveragePool", "ReduceMean")
SELECTING = ("Slice", "Gather", "Split")  # may leave classes out, or change their order
SCALING = ("Mul", "Div", "Add", "Sub", "Max", "Min", "Pow")  # by a constant
COMMUTING = ("Mul", "Add", "Max", "Min")
SUMS, LARGEST = ("ReduceSum", "ReduceL1", "ReduceLogSumExp"), "ReduceMax"
# What may lie between values and what they are divided by, or what is subtracted from them.
_IN_A_SUM = (*SUMS, LARGEST, *MOVING, "Exp", "Sub", "Add", "Max", "Expand", "Reciprocal", "Abs")


@dataclass(frozen=True)
class ProbabilitySource:
    """What probabilities are made of.

    Attributes:
        tensor: Name of the tensor that goes into the first operator that makes probabilities.
        operator: The last such operator on the way to the output.
        ordered: Whether the classes of the output are in the order of the tensor's values.
    """

    tensor: str
    operator: str
    ordered: bool = True


def find_probability_source(model: onnx.ModelProto, output: str) -> ProbabilitySource | None:
    """What the values of this tensor are probabilities of; None where they are none."""
    made = find_producers(model)
    fixed = find_constants(model)
    found: ProbabilitySource | None = None
    tensor, ordered = output, True
    while node := made.get(tensor):
        shifted = _shifted_by(node, made, fixed)
        if node.op_type in PROBABILITIES or shifted == "logarithm":
            tensor = node.input[0]
            operator = "LogSoftmax" if shifted else node.op_type
            found = ProbabilitySource(tensor, found.operator if found else operator, ordered)
        elif shifted:
            if found and found.tensor == tensor:  # exp(z - max(z)): the logits are z
                found = replace(found, tensor=node.input[0])
            tensor = node.input[0]
        elif node.op_type in MOVING + POOLING + SELECTING or _normalises(node, made, fixed):
            ordered = ordered and node.op_type not in SELECTING
            tensor = node.input[0]
        elif node.op_type in SCALING and (scaled := _scaled(node, fixed)) is not None:
            ordered = ordered and _keeps_order(node, scaled, made, model)
            tensor = node.input[scaled]
        else:
            break
    return found


def find_producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each tensor."""
    return {name: node for node in model.graph.node for name in node.output if name}


def find_constants(model: onnx.ModelProto) -> set[str]:
    """Tensors that are the same for every image: weights, and what is made of weights alone."""
    fixed = {tensor.name for tensor in model.graph.initializer} | {""}
    for node in model.graph.node:  # sorted, which the checker verified
        if all(name in fixed for name in node.input):
            fixed.update(node.output)
    return fixed


def _normalises(node: onnx.NodeProto, made: dict[str, onnx.NodeProto], fixed: set[str]) -> bool:
    """Whether a node divides its first input by the sum of its values."""
    if node.op_type == "LpNormalization":
        return any(entry.name == "p" and entry.i == 1 for entry in node.attribute)
    if node.op_type not in ("Div", "Mul") or len(node.input) != 2 or fixed & set(node.input):
        return False
    passed = _operators_between(node.input[1], node.input[0], made, fixed)
    return bool(set(SUMS) & passed) and (node.op_type == "Div" or "Reciprocal" in passed)


def _shifted_by(node: onnx.NodeProto, made: dict[str, onnx.NodeProto], fixed: set[str]) -> str:
    """What a node subtracts from its first input: its "largest", the "logarithm" of its summed exponentials, or ""."""
    if node.op_type != "Sub" or fixed & set(node.input):
        return ""
    passed = _operators_between(node.input[1], node.input[0], made, fixed)
    if "ReduceLogSumExp" in passed or {"Log", "Exp", "ReduceSum"} <= passed:
        return "logarithm"
    return "largest" if LARGEST in passed else ""


def _operators_between(name: str, source: str, made: dict[str, onnx.NodeProto], fixed: set[str]) -> set[str]:
    """The operators by which a tensor is made of `source`; empty where others than those of a sum are among them."""
    waiting, passed, reached, seen = [name], set(), False, {name}
    while waiting:
        tensor = waiting.pop()
        if tensor == source:
            reached = True
            continue
        node = made.get(tensor)
        if node is None or node.op_type not in _IN_A_SUM:
            return set()
        passed.add(node.op_type)
        fresh = [entry for entry in node.input if entry not in seen and entry not in fixed]
        seen.update(fresh)
        waiting.extend(fresh)
    return passed if reached else set()


def _scaled(node: onnx.NodeProto, fixed: set[str]) -> int | None:
    """Which input a node scales by constants; None where it mixes two."""
    free = [index for index, name in enumerate(node.input) if name not in fixed]
    if len(free) != 1 or (free[0] != 0 and node.op_type not in COMMUTING):
        return None
    return free[0]


def _keeps_order(node: onnx.NodeProto, scaled: int, made: dict[str, onnx.NodeProto], model: onnx.ModelProto) -> bool:
    """Whether every class is scaled alike, and by a positive number."""
    others = [name for index, name in enumerate(node.input) if index != scaled and name]
    numbers = [_one_number(name, made, model.graph.initializer) for name in others]
    return all(
        number is not None and (node.op_type in ("Add", "Sub", "Max", "Min") or number > 0) for number in numbers
    )


def _one_number(name: str, made: dict[str, onnx.NodeProto], weights: Iterable[onnx.TensorProto]) -> float | None:
    """The value of a constant that is one number; None for others."""
    while (node := made.get(name)) and node.op_type in MOVING and node.op_type not in ("Clip", "Log"):
        name = node.input[0]
    tensors = [tensor for tensor in weights if tensor.name == name]
    if node is not None and node.op_type == "Constant":
        tensors = [entry.t for entry in node.attribute if entry.name == "value"]
        numbers = [entry.f for entry in node.attribute if entry.name == "value_float"]
        if numbers:
            return float(numbers[0])
    if not tensors or math.prod(tensors[0].dims) != 1:
        return None
    return float(np.asarray(numpy_helper.to_array(tensors[0])).reshape(-1)[0])
