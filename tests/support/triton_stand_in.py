"""Runs the model of `export-triton --decode-images` as Triton's Python backend does; Triton itself is no package.

As a script: FOLDER OF THE MODEL, IMAGE FILE. Prints the columns of its row.
"""

import runpy
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np


class Tensor:
    """What the server hands over and takes back."""

    def __init__(self, name: str, values: Any) -> None:
        self.name, self.values = name, values

    def as_numpy(self) -> Any:
        return self.values


def main() -> None:
    """Load the model and answer one request."""
    server = types.ModuleType("triton_python_backend_utils")
    server.__dict__.update(
        Tensor=Tensor,
        InferenceResponse=list,
        TritonModelException=RuntimeError,
        Logger=types.SimpleNamespace(log_info=print),
        get_input_tensor_by_name=lambda request, name: request[name],
    )
    sys.modules[server.__name__] = server
    folder = Path(sys.argv[1])
    model = runpy.run_path(str(folder / "1" / "model.py"))["TritonPythonModel"]()
    config = '{"max_batch_size": 8, "parameters": {"threads": {"string_value": "1"}}}'
    place = {"model_repository": str(folder), "model_version": "1", "model_name": folder.name}
    model.initialize({**place, "model_config": config})
    image = np.array([[Path(sys.argv[2]).read_bytes()]], object)
    (response,) = model.execute([{"image": Tensor("image", image)}])
    print({tensor.name: tensor.values.ravel().tolist() for tensor in response})


if __name__ == "__main__":
    main()
