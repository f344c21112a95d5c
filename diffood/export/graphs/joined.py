"""Exports the classify graph of a classifier that is an ONNX graph already: torch's preprocessing, then that graph."""

import tempfile
from pathlib import Path

import onnx
import torch
from onnx import compose, helper, version_converter
from torch import nn

from diffood.errors import ExportError
from diffood.export.graphs.modules import ClassifyGraph
from diffood.export.onnx.half_precision import halve
from diffood.export.onnx.proof import GraphInputs, export_onnx, prove_structure, strip_metadata
from diffood.export.request import OPSET
from diffood.export.sources.classifiers.onnx_classifier import FEATURES, LOGITS, OnnxClassifier, opset_of
from diffood.runtime.onnx.parts import OLDEST_OPSET
from diffood.runtime.records import one_line

_PREFIX = "classifier."
_IMAGE = "image"


class _Preparation(nn.Module):
    """What torch does before the classifier's graph."""

    def __init__(self, graph: ClassifyGraph, classifier: OnnxClassifier) -> None:
        super().__init__()
        self.prepare, self.arrange = graph.prepare, classifier.arrange

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images of the UNet to what the classifier's graph takes."""
        return self.arrange(self.prepare(x))


def export_joined(graph: ClassifyGraph, example: GraphInputs, outputs: tuple[str, ...], path: Path, opset: int) -> None:
    """Write `graph`, whose model is an OnnxClassifier, as one file. outputs: the names of logits and features.

    Raises ExportError where the classifier's operators have no equal at `opset`, or a proof of structure fails.
    """
    classifier = graph.model
    assert isinstance(classifier, OnnxClassifier)
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / f"{path.stem}.onnx"
        export_onnx(_Preparation(graph, classifier).eval(), example, (_IMAGE,), before, opset)
        head = onnx.load(before)
    tail = _at_opset(classifier.graph, opset)
    if classifier.halved:
        tail = halve(tail)
    tail.ir_version = head.ir_version
    tail = compose.add_prefix(tail, _PREFIX)
    joined = compose.merge_models(head, tail, [(_IMAGE, _PREFIX + classifier.input)])
    joined.ir_version = head.ir_version
    batch = head.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    found = {_PREFIX + LOGITS: outputs[0], _PREFIX + FEATURES: outputs[1]}
    for node in joined.graph.node:
        node.output[:] = [found.get(name, name) for name in node.output]
        node.input[:] = [found.get(name, name) for name in node.input]
    del joined.graph.output[:]
    widths = [value.shape[1] for value in graph(**example)]
    joined.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, width])
        for name, width in zip(outputs, widths, strict=True)
    )
    strip_metadata(joined)
    onnx.save(joined, path)
    prove_structure(path, tuple(example), outputs, opset)


def _at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same graph in another opset."""
    found = opset_of(model)
    if found == opset:
        made = onnx.ModelProto()
        made.CopyFrom(model)
    else:
        try:
            made = version_converter.convert_version(model, opset)
        except Exception as error:
            reason = one_line(error)[:300]
            raise ExportError(
                f"The classifier is written in opset {found} and cannot be rewritten in {opset} ({reason}): export it "
                f"again in opset {opset}, or give --opset {found} if that is {OLDEST_OPSET} to {OPSET}."
            ) from None
    del made.opset_import[:]
    made.opset_import.append(helper.make_opsetid("", opset))
    made.graph.ClearField("value_info")  # its shapes may be wrong now
    return made
