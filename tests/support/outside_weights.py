"""Bundles whose graphs keep their weights in a file next to them, made from those that hold them inside."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sealed import sealed

SMALLEST, PAGE = 1024, 4096  # bytes of a weight that moves, and where it may begin


def move_outside(bundle: Path, role: str) -> str:
    """Move the large weights of a role's FP32 graph to a file, as an export of a large model does; returns its name."""
    onnx = pytest.importorskip("onnx", reason="needs the extra: export")
    name = f"{role}.weights"
    model = onnx.load(bundle / f"{role}.onnx")
    data = bytearray()
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.nbytes >= SMALLEST and values.dtype == "float32":
            data += bytes(-len(data) % PAGE)
            point_outside(tensor, location=name, offset=len(data), length=values.nbytes)
            data += values.tobytes()
    assert data
    (bundle / name).write_bytes(data)
    onnx.save(model, bundle / f"{role}.onnx")
    seal(bundle, name)
    seal(bundle, f"{role}.onnx")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    for graph in manifest["graphs"]:
        if (graph["role"], graph["precision"]) == (role, "fp32"):
            graph["data"] = name
    (bundle / "manifest.json").write_bytes(sealed(manifest))
    return name


def point_outside(tensor: Any, **places: object) -> None:
    """Take a tensor's values and have it say where they lie instead."""
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = 1  # EXTERNAL
    for key, value in places.items():
        tensor.external_data.add(key=key, value=str(value))


def seal(bundle: Path, name: str) -> None:
    """Give the manifest the present hash and size of a file."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    data = (bundle / name).read_bytes()
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (bundle / "manifest.json").write_bytes(sealed(manifest))
