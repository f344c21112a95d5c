"""Weights that a large graph keeps in a file beside it: whether what it says of them holds, and views of the bytes."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from diffood.runtime.bundle.external_data import ExternalTensor

Weight = npt.NDArray[np.floating]

_TYPES: dict[int, type[np.floating]] = {1: np.float32, 10: np.float16}  # by ONNX's numbers; an export moves no others


def find_problem(tensors: Sequence[ExternalTensor], file: str, size: int) -> str:
    """What is wrong with weights that should lie in `file`, of `size` bytes, as the end of a sentence; "" if nothing.

    Two may share one range, as equal weights do; ranges that overlap otherwise are no export's.
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
        return f"looks for {tensor.name!r} in {tensor.location!r}, where only {file} is proven"
    if tensor.data_type not in _TYPES:
        return f"keeps {tensor.name!r} of type {tensor.data_type} in {file}, where float32 and float16 belong"
    if math.prod(tensor.dims) * item != tensor.length:
        return f"says of {tensor.name!r} that {list(tensor.dims)} values have {tensor.length} bytes"
    if tensor.offset + tensor.length > size:
        return f"looks for {tensor.name!r} behind the end of {file}"
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
