"""The weights of a large graph that are in a second file: checks what the graph says of them, and gives views."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from diffood.runtime.bundle.external_data import ExternalTensor

Weight = npt.NDArray[np.floating]

_TYPES: dict[int, type[np.floating]] = {
    1: np.float32,
    10: np.float16,
}  # by ONNX's numbers; exports move no other


def find_problem(tensors: Sequence[ExternalTensor], file: str, size: int) -> str:
    """What is wrong with weights that should be in `file`, of `size` bytes, as the end of a sentence; "" if nothing.

    Two may share one range, as equal weights do; no export writes ranges that overlap otherwise.
    """
    for tensor in tensors:
        if problem := _problem_of(tensor, file, size):
            return problem
    if len({tensor.name for tensor in tensors}) < len(tensors):
        return "has two weights of one name"
    ranges = sorted({(tensor.offset, tensor.offset + tensor.length) for tensor in tensors})
    if any(right[0] < left[1] for left, right in itertools.pairwise(ranges)):
        return f"has weights that overlap in {file}"
    return ""


def _problem_of(tensor: ExternalTensor, file: str, size: int) -> str:
    item = np.dtype(_TYPES.get(tensor.data_type, np.float32)).itemsize
    if tensor.location != file:
        return f"looks for {tensor.name!r} in {tensor.location!r}, where only {file} is hashed"
    if tensor.data_type not in _TYPES:
        return f"keeps {tensor.name!r} of type {tensor.data_type} in {file}, only float32 and float16 are allowed"
    if math.prod(tensor.dims) * item != tensor.length:
        return f"says of {tensor.name!r} that {list(tensor.dims)} values have {tensor.length} bytes"
    if tensor.offset + tensor.length > size:
        return f"looks for {tensor.name!r} beyond the end of {file}"
    if tensor.offset % item:
        return f"looks for {tensor.name!r} at byte {tensor.offset} of {file}, between two values"
    return ""


def view_weights(tensors: Sequence[ExternalTensor], data: npt.NDArray[np.uint8]) -> dict[str, Weight]:
    """The weights by name, as arrays over the file's bytes: no copies."""
    return {
        tensor.name: data[tensor.offset : tensor.offset + tensor.length]
        .view(_TYPES[tensor.data_type])
        .reshape(tensor.dims)
        for tensor in tensors
    }
