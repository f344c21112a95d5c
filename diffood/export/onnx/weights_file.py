"""The file in which large graphs keep their weights; graphs of the same weights, as the steps of one UNet, share it."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from diffood.export.request import LARGEST_INSIDE

SMALLEST_OUTSIDE = 4096  # bytes of one tensor; shapes and scales stay where shape inference and a reader find them
PAGE = 4096  # weights begin at multiples, so that an engine may map them
TYPES = (onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16)  # what the runtime takes from outside


class WeightsFile:
    """A file that grows with the graphs that use it; equal values are written once.

    Args:
        path: The file, in the folder of the graphs.
        largest_inside: Bytes of weights up to which a graph keeps them itself.
    """

    def __init__(self, path: Path, largest_inside: int = LARGEST_INSIDE) -> None:
        self.path, self.largest_inside = path, largest_inside
        self._places: dict[bytes, int] = {}

    def move(self, model: Any) -> bool:
        """Move the weights of an onnx_ir.Model here if they are too large for its own file; returns whether."""
        weights = [value for value in model.graph.initializers.values() if value.const_value is not None]
        if sum(value.const_value.nbytes for value in weights) <= self.largest_inside:
            return False
        for value in weights:
            tensor = value.const_value
            if tensor.dtype in TYPES and tensor.nbytes >= SMALLEST_OUTSIDE:
                value.const_value = onnx_ir.ExternalTensor(
                    self.path.name,
                    self._place(tensor.numpy()),
                    tensor.nbytes,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=value.name,
                    base_dir=self.path.parent,
                )
        return True

    def _place(self, values: npt.NDArray[Any]) -> int:
        """Offset of these values in the file, to which they are added if need be."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        digest = hashlib.sha256(data).digest()
        if digest not in self._places:
            with self.path.open("ab") as file:
                file.write(bytes(-file.tell() % PAGE))
                self._places[digest] = file.tell()
                file.write(data)
        return self._places[digest]
