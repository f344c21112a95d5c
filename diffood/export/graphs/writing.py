"""Writes the graphs of both models in each precision, and proves them once torch's weights are out of memory."""

import gc
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffood.errors import ExportError
from diffood.export.graphs.autoencoder import DecodeGraph, EncodeGraph
from diffood.export.graphs.joined import export_joined
from diffood.export.graphs.modules import ClassifyGraph, StepGuided, StepLabelled, StepPlain
from diffood.export.graphs.normalisation import fused_group_norms
from diffood.export.onnx.precision import LIMITS, prove_types
from diffood.export.onnx.proof import (
    ADVICE,
    EXAMPLE_BATCH,
    GraphInputs,
    RecordedOutputs,
    export_onnx,
    prove_equal,
    run_torch,
)
from diffood.export.onnx.samples import DrawnInputs, InputSampler, ProofInputs
from diffood.export.onnx.weights_file import WeightsFile
from diffood.export.sources.classifiers.classifier import Classifier
from diffood.export.sources.classifiers.onnx_classifier import OnnxClassifier
from diffood.export.sources.classifiers.onnx_probabilities import find_probability_source
from diffood.export.sources.unets.unet import UNet
from diffood.runtime.bundle.bundle import GraphEntry, Precision, Role
from diffood.runtime.progress import Progress, Say, ShowProgress, hide_progress

STEP_OUTPUTS = ("x_next", "epsilon")
CLASSIFY_OUTPUTS = ("logits", "features")
AUTOENCODER: tuple[Role, ...] = ("encode", "decode")


@dataclass(frozen=True)
class GraphWriter:
    """What all graphs of an export have in common.

    Attributes:
        folder: Where they are written.
        unet: The denoiser, with its schedule and autoencoder.
        classifier: The classifier.
        steps: Of the noise schedule.
        times: Of the schedule, at which step graphs are proven, float32, ascending.
        opset: Of the graphs.
        largest_inside: Bytes of weights above which a graph keeps them in a file of their own.
        report: Gets a line for each graph.
        show_progress: Shows how many proofs are done.
    """

    folder: Path
    unet: UNet
    classifier: Classifier
    steps: int
    times: torch.Tensor
    opset: int
    largest_inside: int
    report: Say
    show_progress: ShowProgress = hide_progress


@dataclass(frozen=True)
class _GraphTask:
    """A graph to write and to prove.

    Attributes:
        role: What the detector uses it for.
        module: What it computes, in torch.
        outputs: Names of its outputs.
        example: A batch of them.
        proofs: GraphInputs to prove it on.
    """

    role: Role
    module: torch.nn.Module
    outputs: tuple[str, ...]
    example: GraphInputs
    proofs: ProofInputs

    @property
    def evaluations(self) -> int:
        """Evaluations of its model that its proofs take in torch, and again in each precision."""
        return self.proofs.rows * _cost(self.role)

    def inputs(self, advance: Progress) -> Iterator[GraphInputs]:
        """The inputs of its proofs; `advance` is told the evaluations of each batch once the next one is asked for."""
        for sample in self.proofs:
            yield sample
            advance(len(sample[next(iter(sample))]) * _cost(self.role))


def _cost(role: Role) -> int:
    return 2 if role == "step_guided" else 1


@dataclass(frozen=True)
class _SavedGraph:
    """A graph that was saved, and what torch gave for it in FP32, to be proven later.

    Attributes:
        task: What it was written for.
        precision: Of its weights.
        path: Its file.
        data: Name of the file with its weights, None where it holds them itself.
        expected: What torch gave in FP32 for the inputs of the task's proofs.
    """

    task: _GraphTask
    precision: Precision
    path: Path
    data: str | None
    expected: RecordedOutputs


def write_graphs(writer: GraphWriter, precisions: Collection[Precision]) -> tuple[list[GraphEntry], int]:
    """Write FP32 graphs, FP16 ones where asked for, and prove them.

    Torch's weights are gone afterwards: the models are left on torch's meta device.

    Returns:
        The graphs for the manifest, and the floating-point operations of a UNet evaluation; 0 without a UNet.

    Raises:
        ExportError: torch cannot export a model, or a proof failed.
    """
    halve = "fp16" in precisions
    tasks = [_plan_graph(writer, *found) for found in _modules(writer.unet, writer.classifier)]
    operations = next((task.proofs.operations for task in tasks if task.role == "step_plain"), 0)
    evaluations = sum(task.evaluations for task in tasks) * (3 if halve else 2)
    written: list[_SavedGraph] = []
    try:
        with writer.show_progress("proving graphs", evaluations) as advance:
            written += _write_fp32(writer, tasks, advance)
            if halve:
                written += _write_fp16(writer, written)
            for model in _models(writer):
                model.to("meta")
            gc.collect()  # the exporter's objects are in cycles, and hold weights
            proven = [entry for graph in written if (entry := _prove_or_keep_fp32(writer, graph, advance))]
        return proven + _fp32_stand_ins(proven, precisions), operations
    finally:
        for graph in written:
            graph.expected.close()


def _plan_graph(writer: GraphWriter, role: Role, module: torch.nn.Module, outputs: tuple[str, ...]) -> _GraphTask:
    samples = InputSampler(_drawn_inputs(writer), role)
    example = samples.draw(EXAMPLE_BATCH)
    proofs = ProofInputs(samples, _count_operations(module, example), writer.times)
    return _GraphTask(role, module, outputs, example, proofs)


def _drawn_inputs(writer: GraphWriter) -> DrawnInputs:
    unet, autoencoder = writer.unet, writer.unet.autoencoder
    codes = None
    if autoencoder and autoencoder.codes:
        offset, scale = torch.tensor(autoencoder.offset), torch.tensor(autoencoder.scale)
        codes = (autoencoder.codes.weight.detach().float() - offset) * scale
    labels = 0 if unet.labels(writer.classifier.classes) == "none" else writer.classifier.classes
    return DrawnInputs(unet.image, (unet.channels, unet.height, unet.width), labels, writer.steps, codes)


def _write_fp32(writer: GraphWriter, tasks: Sequence[_GraphTask], advance: Progress) -> Iterator[_SavedGraph]:
    """The graphs everything is measured against."""
    files: dict[str, WeightsFile] = {}
    for task in tasks:
        expected = RecordedOutputs(run_torch(task.module), task.inputs(advance), writer.folder)
        path = writer.folder / f"{task.role}.onnx"
        with fused_group_norms(task.module):
            data = _save(writer, task, path, _weights(writer, files, task.role, "fp32"))
        if task.role == "classify":
            _require_logits(path, writer.classifier)
        yield _SavedGraph(task, "fp32", path, data, expected)


def _require_logits(path: Path, classifier: Classifier) -> None:
    """Refuse a classifier whose graph makes probabilities; by their values alone, some look like logits."""
    if made := find_probability_source(onnx.load(path, load_external_data=False), CLASSIFY_OUTPUTS[0]):
        raise ExportError(
            f"{classifier.origin} gives probabilities: its graph ends in {made.operator}. The method compares logits, "
            "what goes into that: return them (or name them by --logits-output, for an ONNX file)."
        )


def _write_fp16(writer: GraphWriter, references: Sequence[_SavedGraph]) -> Iterator[_SavedGraph]:
    """Halve the models, in place, and write them again, to be measured against FP32 at every time."""
    for model in _models(writer):
        model.half()
    files: dict[str, WeightsFile] = {}
    for reference in list(references):
        task = reference.task
        path = writer.folder / f"{task.role}.fp16.onnx"
        try:
            data = _save(writer, task, path, _weights(writer, files, task.role, "fp16"))
        except ExportError as error:
            _keep_fp32(writer, task.role, path, error)
            continue
        yield _SavedGraph(task, "fp16", path, data, reference.expected)


def _save(writer: GraphWriter, task: _GraphTask, path: Path, weights: WeightsFile) -> str | None:
    """Write one graph. Returns the name of the file with its weights, None where it holds them itself."""
    module = task.module
    if isinstance(module, ClassifyGraph) and isinstance(module.model, OnnxClassifier):
        export_joined(module, task.example, task.outputs, path, writer.opset)
        return None
    data = export_onnx(module, task.example, task.outputs, path, writer.opset, weights)
    if data:  # large graphs take minutes each: the terminal must not stay silent until all are proven
        writer.report(f"{path.stem:<17} written, its weights to {data}; to be proven once all graphs are written")
    return data


def _weights(writer: GraphWriter, files: dict[str, WeightsFile], role: Role, precision: Precision) -> WeightsFile:
    name = _weights_name(role, precision)
    return files.setdefault(name, WeightsFile(writer.folder / name, writer.largest_inside))


def _weights_name(role: Role, precision: Precision) -> str:
    """The file for large weights of a role's model; all step graphs share one."""
    model = "step" if role in ("step_plain", "step_guided") else role
    return f"{model}.weights" if precision == "fp32" else f"{model}.{precision}.weights"


def _prove_or_keep_fp32(writer: GraphWriter, graph: _SavedGraph, advance: Progress) -> GraphEntry | None:
    """The proven graph; None for a half of an autoencoder that is not accurate enough in half precision."""
    try:
        return _prove(writer, graph, advance)
    except ExportError as error:
        if graph.precision == "fp32":
            raise
        _keep_fp32(writer, graph.task.role, graph.path, error)
        return None


def _keep_fp32(writer: GraphWriter, role: Role, path: Path, error: ExportError) -> None:
    """Leave a half of an autoencoder that overflows in half precision FP32 in this variant too; raise for others."""
    if role not in AUTOENCODER:
        raise error
    for file in (path, writer.folder / _weights_name(role, "fp16")):  # which no other graph shares
        file.unlink(missing_ok=True)
    writer.report(f"{role:<17} stays fp32 in the fp16 variant: {str(error).removesuffix(ADVICE)}")


def _fp32_stand_ins(proven: list[GraphEntry], precisions: Collection[Precision]) -> list[GraphEntry]:
    """FP32 graphs that stand in the FP16 variant where it has none of their own."""
    halved = {entry.role for entry in proven if entry.precision == "fp16"}
    missing = [entry for entry in proven if "fp16" in precisions and entry.role not in halved]
    return [entry.model_copy(update={"precision": "fp16"}) for entry in missing]


def _models(writer: GraphWriter) -> list[torch.nn.Module]:
    autoencoder = writer.unet.autoencoder
    return [writer.unet.model, writer.classifier.model, *([autoencoder.model] if autoencoder else [])]


def _prove(writer: GraphWriter, graph: _SavedGraph, advance: Progress) -> GraphEntry:
    task = graph.task
    proof = prove_equal(
        graph.expected.replay(), graph.path, task.outputs, task.inputs(advance), LIMITS[graph.precision]
    )
    weights = prove_types(graph.path, graph.precision)
    what = (
        f"equal to torch within {proof.error:.0e}" if graph.precision == "fp32" else f"within {proof.error:.0e} of fp32"
    )
    size = f"{graph.path.stat().st_size / 1e6:.1f} MB"
    if graph.data:
        size += f" and {graph.data} {(writer.folder / graph.data).stat().st_size / 1e6:.1f} MB"
    proven = len(task.proofs.times)
    times = f" at {proven} of {writer.steps} times" if proven else ""
    writer.report(f"{graph.path.stem:<17} {size}, opset {writer.opset}, {what} on {proof.rows} inputs{times}")
    return GraphEntry(
        role=task.role,
        file=graph.path.name,
        data=graph.data,
        precision=graph.precision,
        opset=writer.opset,
        error=proof.error,
        weights=weights,
    )


def _modules(unet: UNet, classifier: Classifier) -> Iterator[tuple[Role, torch.nn.Module, tuple[str, ...]]]:
    labels = unet.labels(classifier.classes)
    image = unet.image
    classify = ClassifyGraph(classifier, image.channels, image.height, image.width)
    yield "classify", classify.eval(), CLASSIFY_OUTPUTS
    if not unet.denoises:
        return
    yield "step_plain", (StepPlain(unet) if labels == "none" else StepLabelled(unet)).eval(), STEP_OUTPUTS
    if labels == "class+null":
        yield "step_guided", StepGuided(unet).eval(), STEP_OUTPUTS
    if unet.autoencoder:
        yield "encode", EncodeGraph(unet.autoencoder).eval(), ("z",)
        yield "decode", DecodeGraph(unet.autoencoder).eval(), ("x",)


def _count_operations(module: torch.nn.Module, sample: GraphInputs) -> int:
    """Floating-point operations of a row, as torch counts them while it runs one."""
    with FlopCounterMode(display=False) as counter:
        run_torch(module)({name: value[:1] for name, value in sample.items()})
    return int(counter.get_total_flops())
