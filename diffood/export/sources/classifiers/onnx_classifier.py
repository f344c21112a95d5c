"""A classifier that is an ONNX graph: onnx:FILE. Finds its logits and features; ONNX Runtime runs it inside torch."""

import functools
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.classifiers.loaded_classifier import LoadedClassifier
from diffood.export.sources.classifiers.onnx_file import STANDARD, open_onnx
from diffood.export.sources.classifiers.onnx_heads import (
    OnnxHead,
    Shapes,
    ambiguous_logits,
    count_classes,
    find_head,
    find_logits,
)
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.weights import hash_files, require_finite
from diffood.runtime.budget import limited_memory, load_within, memory_budget
from diffood.runtime.method.scoring import Array
from diffood.runtime.records import one_line
from diffood.runtime.sessions.cores import usable_cores
from diffood.runtime.sessions.onnxruntime import ProviderSettings, start_session

Layout = Literal["NCHW", "NHWC"]

LOGITS, FEATURES = "diffood_logits", "diffood_features"  # what the added outputs are called
CHANNELS = (1, 3)
_AXES_ARE_AN_INPUT = 18  # opset from which ReduceMean does
_WEIGHTS_NEED_NO_INPUT = 4  # IR version from which weights are not listed among the inputs
_FREE = (
    "export it again with a free first dimension: torch.onnx.export(..., dynamo=True, dynamic_shapes={'x': {0: "
    "torch.export.Dim('batch')}}), or dynamic_axes={'x': {0: 'batch'}}"
)


class OnnxClassifier(nn.Module):
    """The graph as a module: x float32 [B, C, H, W] -> (logits [B, K], features [B, D]). graphs/joined.py exports it.

    Attributes:
        graph: The file's own nodes, and after them the outputs LOGITS and FEATURES.
        layout: Order of the axes of its input.
        halved: Whether the exported graph is to compute in FP16; what runs here is always the file's own arithmetic.
        input: Name of its input.
    """

    def __init__(self, graph: onnx.ModelProto, layout: Layout) -> None:
        super().__init__()
        self.graph, self.layout, self.halved = graph, layout, False
        self.input = graph.graph.input[0].name
        self._session = _start(graph, "The classifier")

    def half(self) -> "OnnxClassifier":
        """Have the exported graph compute in FP16."""
        self.halved = True
        return self

    def arrange(self, x: torch.Tensor) -> torch.Tensor:
        """Give the axes of images [B, C, H, W] the order of the graph's input."""
        return x if self.layout == "NCHW" else x.permute(0, 2, 3, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run ONNX Runtime on the CPU."""
        found = self._session.run([LOGITS, FEATURES], {self.input: self.arrange(x).contiguous().cpu().numpy()})
        logits, features = (torch.from_numpy(value).to(x.device) for value in found)
        return logits, features


def load(source: ClassifierSource, size: tuple[int, int]) -> LoadedClassifier:
    """Open a graph, find its logits and features, and say which they are. Raises ExportError where it has none."""
    if source.weights is not None:
        raise ExportError("A graph of onnx:FILE holds its own weights: leave --classifier-weights out.")
    path = Path(source.name)
    model, files = open_onnx(path)
    _require_finite(model, path)
    layout, channels, fixed = _read_input(model, path)
    sides = fixed or size
    shape = (2, channels, *sides) if layout == "NCHW" else (2, *sides, channels)
    example = np.zeros(shape, np.float32)
    outputs = [value.name for value in model.graph.output]
    found = _shapes(model, outputs, example, path)
    logits = find_logits(model, source.logits, found)
    head = find_head(model, logits.tensor, source.features)
    shapes = _shapes(model, [logits.tensor, head.features], example, path)
    if logits.output and count_classes(shapes[logits.tensor][0]) != count_classes(found[logits.output][0]):
        raise ambiguous_logits(logits.output, logits.tensor)
    graph = _with_outputs(model, logits.tensor, head, shapes)
    return LoadedClassifier(
        OnnxClassifier(graph, layout),
        f"onnx {path.name}",
        hash_files(files),
        Preprocessing(size=fixed),
        "the size is the graph's; --mean and --std are yours to say" if fixed else "--mean and --std are yours to say",
        features_from=head.words,
        notes=(f"its logits are {logits.words}",),
        parameters=sum(math.prod(tensor.dims) for tensor in graph.graph.initializer),
    )


def _start(graph: onnx.ModelProto, what: str) -> Any:
    """A session of ONNX Runtime, with limits while it computes constants. Raises BundleError, which names `what`."""
    model = graph.SerializeToString()
    return load_within(functools.partial(start_session, model, ProviderSettings()), len(model), what)


def _require_finite(model: onnx.ModelProto, path: Path) -> None:
    """Refuse weights with NaN or infinity; single values may be bounds of a Clip, and -Infinity a mask."""
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    tensors = (
        (tensor.name, torch.from_numpy(numpy_helper.to_array(tensor).copy()))
        for tensor in model.graph.initializer
        if tensor.data_type in floats and math.prod(tensor.dims) > 1
    )
    require_finite(tensors, f"in {path}", parameters=set())


def _read_input(model: onnx.ModelProto, path: Path) -> tuple[Layout, int, tuple[int, int] | None]:
    """The order of the axes, the channels, and the size (H, W) where it is fixed. Drops what is no real input."""
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]  # old exporters list weights there too
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _WEIGHTS_NEED_NO_INPUT)
    if len(inputs) != 1:
        raise ExportError(f"{path} takes {[value.name for value in inputs]}; a classifier takes one tensor of images.")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind.elem_type).lower()
        raise ExportError(f"{path} takes images of type {name}; export it in float32, diffood halves it itself.")
    dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim]
    if len(dims) != 4:
        raise ExportError(f"{path} takes a tensor of {len(dims)} dimensions; a classifier's images have 4.")
    if dims[0]:
        raise ExportError(f"The batch of {path} is fixed at {dims[0]}: {_FREE}.")
    if dims[1] in CHANNELS or (not dims[1] and dims[3] not in CHANNELS):
        layout: Layout = "NCHW"
        channels, sides = dims[1] or 3, dims[2:]
    elif dims[3] in CHANNELS:
        layout, channels, sides = "NHWC", dims[3], dims[1:3]
    else:
        raise ExportError(f"{path} takes images of shape {dims[1:]}; 1 or 3 channels, first or last, are possible.")
    return layout, channels, (sides[0], sides[1]) if all(sides) else None


def _shapes(model: onnx.ModelProto, names: list[str], example: Array, path: Path) -> Shapes:
    """Shape and type of tensors of the graph for an example, by running it."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in watched.graph.output}
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    try:
        session = _start(watched, str(path))
        with limited_memory(memory_budget(watched.ByteSize(), usable_cores(), example.nbytes)):
            found = session.run(names, {model.graph.input[0].name: example})
    except Exception as error:
        reason = one_line(error)[-300:]
        raise ExportError(
            f"ONNX Runtime cannot run {path} on a batch of {len(example)} images of {list(example.shape[1:])} "
            f"({reason}). If it is the batch, {_FREE}; if it is the size, give --input-size."
        ) from None
    return {name: (tuple(value.shape), value.dtype) for name, value in zip(names, found, strict=True)}


def _with_outputs(model: onnx.ModelProto, logits: str, head: OnnxHead, shapes: Shapes) -> onnx.ModelProto:
    """The sub-graph that LOGITS and FEATURES, its outputs, need."""
    for name, option in ((logits, "--logits-output"), (head.features, "--features-output")):
        shape, kind = shapes[name]
        if kind != np.float32 or len(shape) < 2 or shape[0] != 2:
            raise ExportError(f"{name} is {kind} of shape {list(shape)} for 2 images; name another tensor by {option}.")
    classes = count_classes(shapes[logits][0])
    if not classes:
        raise ExportError(f"{logits} has shape {list(shapes[logits][0])}, logits have [2, K]: see --logits-output.")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    axes = head.positions(len(shapes[head.features][0]))
    added = [helper.make_node("Identity" if len(shapes[logits][0]) == 2 else "Flatten", [logits], [LOGITS])]
    if not axes:
        added.append(helper.make_node("Identity", [head.features], [FEATURES]))
    elif opset_of(made) < _AXES_ARE_AN_INPUT:
        added.append(helper.make_node("ReduceMean", [head.features], [FEATURES], axes=axes, keepdims=0))
    else:
        graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), "diffood_axes"))
        added.append(helper.make_node("ReduceMean", [head.features, "diffood_axes"], [FEATURES], keepdims=0))
    graph.node.extend(added)
    for field in ("output", "value_info", "sparse_initializer", "quantization_annotation"):
        graph.ClearField(field)
    shape = shapes[head.features][0]
    width = math.prod(size for axis, size in enumerate(shape) if axis and axis not in axes)
    for name, size in ((LOGITS, classes), (FEATURES, width)):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size]))
    needed = Extractor(made).extract_model([graph.input[0].name], [LOGITS, FEATURES])
    needed.graph.name = graph.name
    return needed


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators a graph is written in."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in STANDARD)
