"""Writes the graphs of both models in each precision, and proves them once torch's weights are out of memory."""

import gc
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffood.export.graphs import ClassifyGraph, StepGuided, StepLabelled, StepPlain
from diffood.export.normalisation import fused_group_norms
from diffood.export.onnx import EXAMPLE_BATCH, Inputs, Recording, export_onnx, prove_equal, run_torch
from diffood.export.precision import LIMITS, prove_types
from diffood.export.samples import Proofs, Samples
from diffood.export.sources.classifier import Classifier
from diffood.export.sources.unet import UNet
from diffood.export.weights_file import WeightsFile
from diffood.runtime.bundle import GraphEntry, Precision, Role

GOLDEN_IMAGES = 4
STEP_OUTPUTS = ("x_next", "epsilon")
CLASSIFY_OUTPUTS = ("logits", "features")

Golden = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class GraphWriter:
    """What all graphs of an export have in common. steps: of the noise schedule; largest_inside: see WeightsFile."""

    folder: Path
    unet: UNet
    classifier: Classifier
    steps: int
    opset: int
    largest_inside: int
    report: Callable[[str], None]


@dataclass(frozen=True)
class _Written:
    """A graph that was saved, and what torch gave for it in FP32, to be proven later."""

    role: Role
    precision: Precision
    path: Path
    data: str | None
    outputs: tuple[str, ...]
    proofs: Proofs
    expected: Recording


def write_graphs(writer: GraphWriter, precisions: Collection[Precision]) -> tuple[list[GraphEntry], Golden]:
    """Write FP32 graphs, FP16 ones where asked for, and prove them; returns them and golden values.

    Torch's weights are gone afterwards: the models are left on torch's meta device. Raises ExportError.
    """
    golden: Golden = {}
    written = list(_write_fp32(writer, golden))
    try:
        if "fp16" in precisions:
            written += _write_fp16(writer, {graph.role: graph for graph in written})
        for model in (writer.unet.model, writer.classifier.model):
            model.to("meta")
        gc.collect()  # what the exporter made refers to itself, and to weights
        return [_prove(writer, graph) for graph in written], golden
    finally:
        for graph in written:
            graph.expected.close()


def _write_fp32(writer: GraphWriter, golden: Golden) -> Iterator[_Written]:
    """The graphs everything is measured against, and golden values."""
    files: dict[str, WeightsFile] = {}
    for role, module, outputs in _modules(writer.unet, writer.classifier):
        samples = Samples(writer.unet, writer.classifier.classes, writer.steps, role)
        example = samples.draw(EXAMPLE_BATCH)
        proofs = Proofs(samples, _count_operations(module, example))
        expected = Recording(run_torch(module), iter(proofs), writer.folder)
        golden |= _golden(role, samples.draw(GOLDEN_IMAGES), outputs, module)
        path = writer.folder / f"{role}.onnx"
        with fused_group_norms(module):
            data = export_onnx(module, example, outputs, path, writer.opset, _weights(writer, files, role, "fp32"))
        _announce(writer, path, data)
        yield _Written(role, "fp32", path, data, outputs, proofs, expected)


def _golden(role: Role, sample: Inputs, outputs: tuple[str, ...], module: torch.nn.Module) -> Golden:
    """Inputs of a graph and what torch gives for them, row by row: a large model has no memory for four at once."""
    rows = [run_torch(module)({name: value[i : i + 1] for name, value in sample.items()}) for i in range(GOLDEN_IMAGES)]
    found: Golden = {f"{role}.in.{name}": value.numpy() for name, value in sample.items()}
    for index, name in enumerate(outputs):
        found[f"{role}.out.{name}"] = np.concatenate([row[index] for row in rows])
    return found


def _write_fp16(writer: GraphWriter, references: dict[Role, _Written]) -> Iterator[_Written]:
    """Halve both models, in place, and write them again, to be measured against FP32 at every time."""
    writer.unet.model.half()
    writer.classifier.model.half()
    files: dict[str, WeightsFile] = {}
    for role, module, outputs in _modules(writer.unet, writer.classifier):
        path, reference = writer.folder / f"{role}.fp16.onnx", references[role]
        example = Samples(writer.unet, writer.classifier.classes, writer.steps, role).draw(EXAMPLE_BATCH)
        data = export_onnx(module, example, outputs, path, writer.opset, _weights(writer, files, role, "fp16"))
        _announce(writer, path, data)
        yield _Written(role, "fp16", path, data, outputs, reference.proofs, reference.expected)


def _announce(writer: GraphWriter, path: Path, data: str | None) -> None:
    """Large graphs take minutes each, so that the terminal must not stay silent until all are proven."""
    if data:
        writer.report(f"{path.stem:<17} written, its weights to {data}; to be proven once all graphs are written")


def _weights(writer: GraphWriter, files: dict[str, WeightsFile], role: Role, precision: Precision) -> WeightsFile:
    """The file for large weights of a role's model: one for all step graphs, since they hold the same."""
    model = "step" if role in ("step_plain", "step_guided") else role
    name = f"{model}.weights" if precision == "fp32" else f"{model}.{precision}.weights"
    return files.setdefault(name, WeightsFile(writer.folder / name, writer.largest_inside))


def _prove(writer: GraphWriter, graph: _Written) -> GraphEntry:
    proof = prove_equal(graph.expected.replay(), graph.path, graph.outputs, iter(graph.proofs), LIMITS[graph.precision])
    weights = prove_types(graph.path, graph.precision)
    what = (
        f"equal to torch within {proof.error:.0e}" if graph.precision == "fp32" else f"within {proof.error:.0e} of fp32"
    )
    size = f"{graph.path.stat().st_size / 1e6:.1f} MB"
    if graph.data:
        size += f" and {graph.data} {(writer.folder / graph.data).stat().st_size / 1e6:.1f} MB"
    times = "" if graph.proofs.every_time else f", spread over the {writer.steps} times"
    writer.report(f"{graph.path.stem:<17} {size}, opset {writer.opset}, {what} on {proof.rows} inputs{times}")
    return GraphEntry(
        role=graph.role,
        file=graph.path.name,
        data=graph.data,
        precision=graph.precision,
        opset=writer.opset,
        error=proof.error,
        weights=weights,
    )


def _modules(unet: UNet, classifier: Classifier) -> Iterator[tuple[Role, torch.nn.Module, tuple[str, ...]]]:
    labels = unet.labels(classifier.classes)
    classify = ClassifyGraph(classifier, unet.channels, unet.height, unet.width)
    yield "classify", classify.eval(), CLASSIFY_OUTPUTS
    yield "step_plain", (StepPlain(unet) if labels == "none" else StepLabelled(unet)).eval(), STEP_OUTPUTS
    if labels == "class+null":
        yield "step_guided", StepGuided(unet).eval(), STEP_OUTPUTS


def _count_operations(module: torch.nn.Module, sample: Inputs) -> int:
    """Floating-point operations of a row, as torch counts them while it runs one."""
    with FlopCounterMode(display=False) as counter:
        run_torch(module)({name: value[:1] for name, value in sample.items()})
    return int(counter.get_total_flops())
