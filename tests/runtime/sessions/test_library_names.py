"""Every name of TensorRT and CUDA that the sessions use exists in the installed packages; nothing is run."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffood.runtime.sessions import cuda, tensorrt

# Variables of sessions/tensorrt.py and what they hold, as names of the module `trt`.
TENSORRT_VARIABLES = {
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "config": "IRuntimeConfig",
    "cache": "IRuntimeCache",
}
# What only TensorRT-RTX has: used where library is "tensorrt-rtx", and nowhere else.
ONLY_RTX = {
    ("engine", "create_runtime_config"),
    ("config", "dynamic_shapes_kernel_specialization_strategy"),
    ("config", "cuda_graph_strategy"),
    ("config", "create_runtime_cache"),
    ("config", "set_runtime_cache"),
    ("cache", "deserialize"),
    ("cache", "serialize"),
    ("trt", "DynamicShapesKernelSpecializationStrategy", "EAGER"),
    ("trt", "CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE"),
}

Name = tuple[str, ...]


def names_used(source: str, variables: set[str]) -> set[Name]:
    """Attribute chains that begin with one of these variables, or with self's attribute of that name."""
    return set(_chains(ast.parse(source), variables))


def _chains(tree: ast.AST, variables: set[str]) -> Iterator[Name]:
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        chain: list[str] = []
        part: ast.AST = node
        while isinstance(part, ast.Attribute):
            chain.insert(0, part.attr)
            part = part.value
        if node in inner or not chain or not isinstance(part, ast.Name):
            continue
        if part.id == "self":
            chain[0] = chain[0].removeprefix("_")
        else:
            chain.insert(0, part.id)
        if chain[0] in variables and len(chain) > 1:
            yield tuple(chain)


def missing(names: set[Name], roots: dict[str, Any]) -> list[str]:
    """Names that do not lead to anything."""

    def found(name: Name) -> bool:
        place = roots[name[0]]
        for part in name[1:]:
            if not hasattr(place, part):
                return False
            place = getattr(place, part)
        return True

    return sorted(".".join(name) for name in names if not found(name))


def source(module: Any) -> str:
    return Path(module.__file__).read_text()


def test_tensorrt_has_every_name_that_is_used(subtests: pytest.Subtests) -> None:
    for library in ["tensorrt", "tensorrt-rtx"]:
        with subtests.test(library=library):
            trt = pytest.importorskip(tensorrt.MODULES[library])  # type: ignore[index]
            names = names_used(source(tensorrt), {"trt", *TENSORRT_VARIABLES})
            if library == "tensorrt":
                names -= ONLY_RTX
            roots = {"trt": trt, **{name: getattr(trt, kind, None) for name, kind in TENSORRT_VARIABLES.items()}}
            assert missing(names, roots) == []


def test_the_cuda_runtime_has_every_name_that_is_used() -> None:
    cudart = pytest.importorskip("cuda.bindings.runtime")
    calls = names_used(source(cuda), {"cudart"})
    fields = {name[:2] for name in names_used(source(cuda), {"properties"})}  # what is done with a value is Python's
    assert missing(calls | fields, {"cudart": cudart, "properties": cudart.cudaDeviceProp}) == []


def test_what_is_compared_is_what_the_sessions_call() -> None:
    """The variables above are those of the code: a renamed one would empty the comparison."""
    used = names_used(source(tensorrt), {"trt", *TENSORRT_VARIABLES})
    assert used >= ONLY_RTX
    assert {name[0] for name in used} == {"trt", *TENSORRT_VARIABLES}
    assert used >= {
        ("trt", "Runtime"),
        ("trt", "DataType", "UINT8"),
        ("runtime", "deserialize_cuda_engine"),
        ("runtime", "engine_host_code_allowed"),
        ("engine", "create_execution_context"),
        ("engine", "get_tensor_dtype"),
        ("context", "execute_async_v3"),
        ("context", "set_input_shape"),
        ("context", "get_tensor_shape"),
        ("context", "set_tensor_address"),
    }
    calls = names_used(source(cuda), {"cudart", "properties"})
    assert calls >= {
        ("cudart", "cudaGetDeviceCount"),
        ("cudart", "cudaMallocHost"),
        ("cudart", "cudaMemcpyKind", "cudaMemcpyHostToDevice"),
        ("cudart", "cudaStreamEndCapture"),
        ("cudart", "cudaGraphLaunch"),
        ("properties", "major"),
    }


def test_a_name_that_is_not_there_is_found() -> None:
    code = "def f(self, trt):\n    self._cudart.cudaNoSuch(1)\n    return trt.DataType.INT64, trt.Nothing.ever"
    used = names_used(code, {"trt", "cudart"})
    roots = {"trt": importlib.import_module("types").SimpleNamespace(DataType=int), "cudart": ast}
    assert missing(used, roots) == ["cudart.cudaNoSuch", "trt.DataType.INT64", "trt.Nothing.ever"]
