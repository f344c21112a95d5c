"""ONNX files of a bundle, with the right hash in the manifest: our own checks, then the engine and one image."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from image_mutations import mutate
from oracle import Scratch, attempt
from small_models import SMALL_BUNDLE

from diffood.runtime.bundle.bundle import FileEntry, open_bundle
from diffood.runtime.bundle.graphs import read_model
from diffood.runtime.bundle.operators import ALLOWED
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import Plan
from diffood.runtime.onnx import messages

SCRATCH = Scratch()
BUNDLE = replace(open_bundle(SMALL_BUNDLE), path=SCRATCH.path)
FILE = "classify.onnx"
PLAN: Plan = BUNDLE.plan().changed({"start_times": (), "witnesses": ("energy",), "repeats": 0, "stages": ()})
OPERATORS = sorted(ALLOWED)
NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**15, 2**31 - 1, 2**31, 2**63 - 1, -(2**63))


def use(data: bytes) -> None:
    """Open a bundle whose classifier is this, and score an image where it opens."""
    Path(SCRATCH.path, FILE).write_bytes(data)
    entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    files = BUNDLE.manifest.files | {FILE: entry}
    bundle = replace(BUNDLE, manifest=BUNDLE.manifest.model_copy(update={"files": files}))
    if attempt(lambda: read_model(bundle, bundle.graph("classify"))):
        attempt(lambda: Detector.load(bundle, PLAN, batch=1, threads=1).score(np.zeros((1, 28, 28), np.uint8)))


def change(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage what a graph says: a node, an attribute, a weight or a shape."""
    try:
        model = messages.Model.FromString(data)
    except Exception:  # protobuf's own
        return mutate(data, rng)
    graph = model.graph
    for _ in range(rng.integers(1, 4)):
        number = int(NUMBERS[rng.integers(len(NUMBERS))])
        if graph.node and rng.integers(2):
            _change_node(graph, number, rng)
        elif graph.initializer:
            _change_weight(graph.initializer[rng.integers(len(graph.initializer))], number, rng)
    if model.opset_import and not rng.integers(10):
        model.opset_import[0].version = int(rng.integers(0, 30))
    return bytes(model.SerializeToString())


def _change_node(graph: Any, number: int, rng: np.random.Generator) -> None:
    node = graph.node[rng.integers(len(graph.node))]
    match rng.integers(5):
        case 0:
            node.op_type = OPERATORS[rng.integers(len(OPERATORS))]
        case 1:
            _swap(node.input, _names(graph), rng)
        case 2:
            _swap(node.output, _names(graph), rng)
        case 3:
            _change_attribute(node, number, rng)
        case 4:
            graph.node.add().CopyFrom(node)


def _change_weight(tensor: Any, number: int, rng: np.random.Generator) -> None:
    match rng.integers(4):
        case 0:
            tensor.dims[:] = [number, *tensor.dims[1:]]
        case 1:
            tensor.data_type = int(rng.integers(0, 24))
        case 2:
            tensor.raw_data = tensor.raw_data[: int(rng.integers(0, len(tensor.raw_data) + 1))]
        case 3:
            tensor.raw_data = np.int64(number).tobytes() * max(1, len(tensor.raw_data) // 8)


def _names(graph: Any) -> list[str]:
    names = [*(name for node in graph.node for name in node.output), *(tensor.name for tensor in graph.initializer)]
    return ["", *(name for name in names if isinstance(name, str))]  # others are no UTF-8, and cannot be set


def _swap(names: Any, others: list[str], rng: np.random.Generator) -> None:
    if names:
        names[rng.integers(len(names))] = others[rng.integers(len(others))]


def _change_attribute(node: Any, number: int, rng: np.random.Generator) -> None:
    if not node.attribute:
        node.attribute.add(name=("axis", "axes", "group", "to")[rng.integers(4)], type=2, i=number)
        return
    attribute = node.attribute[rng.integers(len(node.attribute))]
    attribute.i = number
    if attribute.ints:
        attribute.ints[rng.integers(len(attribute.ints))] = number
