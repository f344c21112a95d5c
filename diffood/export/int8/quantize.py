"""INT8 graphs of a bundle: calibrated on what its default plan feeds them, the worst products left in FP32, proven."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch

from diffood.errors import ExportError, UsageError
from diffood.export.int8.qdq import (
    Clips,
    count_multiplications,
    fit_inputs,
    insert_pairs,
    list_products,
    measure_clips,
    open_session,
)
from diffood.export.int8.states import States, encode_images, record_states
from diffood.export.onnx.precision import LIMITS, count_products, prove_types
from diffood.export.onnx.proof import PROOF_BATCHES, GraphInputs, prove_equal, prove_structure, run_onnx
from diffood.export.onnx.samples import count_rows, first_batches, proof_times, times_asked
from diffood.export.request import FEWEST_IMAGES, IMAGES, ProofScope
from diffood.runtime.assembly.files import write_detectors
from diffood.runtime.bundle.bundle import Bundle, FileEntry, GraphEntry, Manifest, Precision, Role, open_bundle
from diffood.runtime.bundle.graphs import read_graph
from diffood.runtime.bundle.trust import Trust
from diffood.runtime.bundle.writing import write_bundle
from diffood.runtime.images.pixels import Pixels, from_pixels
from diffood.runtime.method.scoring import Array
from diffood.runtime.progress import Say

MEASURED_EVERY = 8  # of them measures, the others calibrate
NAMES_SHOWN = 8  # of products that stay FP32, the most sensitive first; there may be hundreds
RANKING_ROWS = 8  # of each group of states, to rank the products by; all decide
LARGEST_WHOLE = 2**31 - 2**26  # bytes of a graph and its weights: protobuf's limit, less what the search adds
PIXELS_A_BATCH = 2**15  # of an engine call while every activation is kept: 32 images of 32 x 32
# Root mean square of what int8 adds to an output, as a share of that of the output, at the worst time of the plan. On
# the zoo these flip 0.1 % of the default plan's verdicts and 0.3 % of the plain plan's, and move no AUROC by more than
# 0.01 and 0.19 points, within the gate's 0.5 % and 0.2 points (docs/parity.md).
# Autoencoders stay FP32: what their errors do to verdicts was never measured.
BUDGETS: dict[Role, float] = {"classify": 0.01, "step_guided": 0.045, "step_plain": 0.045}
JUDGED: dict[Role, tuple[str, ...]] = {
    "classify": ("logits", "features"),
    "step_guided": ("epsilon",),
    "step_plain": ("epsilon",),
}


@dataclass(frozen=True)
class Int8SearchResult:
    """What the search found.

    Attributes:
        model: The graph with INT8 products.
        errors: Root mean square error by group of states, as a share of the output.
        left: Products left in FP32, the most sensitive first.
    """

    model: onnx.ModelProto
    errors: dict[str, float]
    left: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    """What all graphs that are quantised in one call have in common.

    Attributes:
        bundle: Where they come from.
        calibration: What ranges are measured on.
        measured: What the error is measured on.
        noised: Images, or their latents, for proofs at times of the schedule.
        times: Those times, int64, ascending.
        folder: Where graphs are written.
        report: Gets lines on each graph.
    """

    bundle: Bundle
    calibration: Mapping[Role, States]
    measured: Mapping[Role, States]
    noised: Array
    times: npt.NDArray[np.int64]
    folder: Path
    report: Say


def quantize_bundle(
    bundle_path: Path, images: Pixels, *, report: Say, proof: ProofScope = "quick", trust: Trust | None = None
) -> Manifest:
    """Write INT8 graphs into a bundle, in place of those it may have, and name them in its manifest, last.

    The result is the same on every run. The bundle is unchanged where an error is raised.

    Args:
        bundle_path: The bundle's folder.
        images: In-distribution, uint8 [N, C, H, W] of the models' shape, N >= 16; those of the calibration will do.
        report: Gets lines on each graph.
        proof: At which times of the schedule steps are compared with FP32.
        trust: What is asked of the bundle; None: what the environment asks.

    Raises:
        BundleError: It is not a bundle.
        UsageError: The images do not fit.
        ExportError: No product can be INT8, or a proof failed.
    """
    bundle = open_bundle(bundle_path, trust)
    chosen = _choose_images(bundle, images)
    measures = np.arange(len(chosen)) % MEASURED_EVERY == 0
    calibration = record_states(bundle, chosen[~measures])
    measured = record_states(bundle, chosen[measures])
    noised = encode_images(bundle, from_pixels(chosen))
    with tempfile.TemporaryDirectory(prefix=".int8.", dir=bundle_path) as scratch:
        task = _Task(bundle, calibration, measured, noised, _times(bundle, proof), Path(scratch), report)
        exact = [entry for entry in bundle.manifest.graphs if entry.precision == "fp32"]
        entries = [_quantize(task, entry) for entry in exact if entry.role in JUDGED]
        if "int8" in bundle.precisions:
            replace_graphs(bundle, "int8", ())  # an interruption from here on leaves a bundle that opens
        shared = [entry.model_copy(update={"precision": "int8"}) for entry in exact if entry.role not in JUDGED]
        for entry in shared:
            report(f"{entry.role:<17} stays fp32 in the int8 variant: {entry.file}")
        for entry in entries:
            (Path(scratch) / entry.file).replace(bundle_path / entry.file)
    return replace_graphs(bundle, "int8", [*entries, *shared])


def _choose_images(bundle: Bundle, images: Pixels) -> Pixels:
    """At most IMAGES of the images, evenly over their order: folders are often sorted by class."""
    shape = bundle.manifest.image
    planes = (shape.channels, shape.height, shape.width)
    if images.dtype != np.uint8 or images.ndim != 1 + len(planes) or images.shape[1:] != planes:
        raise UsageError(
            f"Images to calibrate int8 on have shape {images.shape} and type {images.dtype}; this bundle takes uint8 "
            f"[N, {', '.join(map(str, planes))}]."
        )
    if len(images) < FEWEST_IMAGES:
        raise UsageError(
            f"{len(images)} images are too few to calibrate int8 graphs: give at least {FEWEST_IMAGES} "
            f"in-distribution images, better {IMAGES}."
        )
    rows = np.linspace(0, len(images) - 1, min(len(images), IMAGES)).round().astype(int)
    return np.asarray(images[rows])


def _quantize(task: _Task, entry: GraphEntry) -> GraphEntry:
    """Write the INT8 graph of an FP32 one, and prove it."""
    role, path = entry.role, task.folder / f"{entry.role}.int8.onnx"
    calibration, measured, report = task.calibration[role], task.measured[role], task.report
    model = load_with_weights(task.bundle, entry)
    rows = max(1, PIXELS_A_BATCH // math.prod(calibration.inputs["x"].shape[2:]))
    clips = measure_clips(model, calibration.split(rows))
    try:
        found = search(model, clips, measured, JUDGED[role], BUDGETS[role], rows)
    except ExportError as error:
        raise ExportError(f"{entry.file}: {error}") from None
    onnx.save(onnx.shape_inference.infer_shapes(found.model), path)  # sizes of feature maps, for witnesses of them
    outputs = tuple(value.name for value in model.graph.output)
    prove_structure(path, tuple(value.name for value in model.graph.input), outputs, entry.opset)
    weights = prove_types(path, "int8")
    samples = _proofs(task, model, measured)
    proof = prove_equal(run_onnx(task.bundle.path / entry.file, outputs), path, outputs, samples, LIMITS["int8"])
    products = count_products(path)
    report(
        f"{path.stem:<17} {path.stat().st_size / 1e6:.1f} MB, opset {entry.opset}, {products['int8']} of "
        f"{sum(products.values())} products in int8, within {proof.error:.0e} of fp32 on {proof.rows} inputs"
    )
    shares = ", ".join(f"{100 * error:.1f} % at {group}" for group, error in found.errors.items())
    report(f"{path.stem:<17} error in {' and '.join(JUDGED[role])} on what the loop feeds it: {shares}")
    names = _name_products(model, found.left)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    report(f"{path.stem:<17} left in fp32: {', '.join(names[:NAMES_SHOWN]) or 'none'}{more}")
    return GraphEntry(
        role=role, file=path.name, precision="int8", opset=entry.opset, error=proof.error, weights=weights
    )


def load_with_weights(bundle: Bundle, entry: GraphEntry) -> onnx.ModelProto:
    """An FP32 graph with all its weights in one message, as the search needs it. ExportError where none can hold it."""
    size = sum(bundle.entry(name).size for name in (entry.file, entry.data) if name)
    if size > LARGEST_WHOLE:
        raise ExportError(
            f"{entry.file} and its weights have {size / 1e9:.1f} GB; at most "
            f"{LARGEST_WHOLE / 1e9:.1f} GB fit into the one ONNX message it takes to change them. Export the "
            "models again with --precision fp16."
        )
    graph = read_graph(bundle, entry.role, entry.precision)
    model = onnx.load_from_string(graph.model)
    for tensor in model.graph.initializer:
        if tensor.name in graph.outside:
            tensor.CopyFrom(onnx.numpy_helper.from_array(graph.outside[tensor.name], tensor.name))
    return model


def search(
    model: onnx.ModelProto, clips: Clips, measured: States, judged: Sequence[str], budget: float, rows: int
) -> Int8SearchResult:
    """Find the fewest products to leave in FP32 so that the error stays within `budget` in every group of states.

    Products are ranked by the squared error each causes when it alone is int8, for each multiplication it would do
    in FP32, worst first: small ones that matter go before large ones. As errors add up in squares, the first that fit
    are found by halving.

    Args:
        model: The FP32 graph.
        clips: Largest magnitudes that int8 shows, by tensor.
        measured: What it is fed.
        judged: Outputs whose error counts.
        budget: Largest error, as a share of the output.
        rows: Of an engine call.

    Raises:
        ExportError: Not one product can be INT8 within the budget.
    """
    ranking = _ErrorMeter(model, measured.first(RANKING_ROWS), judged, rows)
    names = [node.output[0] for node in list_products(model)]
    alone = {name: max(ranking.errors(insert_pairs(model, clips, {name})).values()) for name in names}
    work = count_multiplications(model, measured.take(np.arange(1)))
    ranked = sorted(names, key=lambda name: -(alone[name] ** 2) / work[name])
    deciding = _ErrorMeter(model, measured, judged, rows)
    low, high = 0, len(ranked)
    while low < high:
        middle = (low + high) // 2
        if max(deciding.errors(insert_pairs(model, clips, ranked[middle:])).values()) <= budget:
            high = middle
        else:
            low = middle + 1
    if low == len(ranked):
        raise ExportError(
            f"none of its {len(ranked)} products can be int8: the least sensitive adds "
            f"{100 * min(alone.values(), default=0):.1f} % to its output, {100 * budget:.1f} % is allowed. Use fp16."
        )
    quantised = insert_pairs(model, clips, ranked[low:])
    return Int8SearchResult(quantised, deciding.errors(quantised), tuple(ranked[:low]))


class _ErrorMeter:
    """Outputs of the FP32 model on some states, and how far another model's are from them."""

    def __init__(self, model: onnx.ModelProto, states: States, outputs: Sequence[str], rows: int) -> None:
        self.batches, self.outputs = states.split(rows), outputs
        self.groups = {group: states.groups == group for group in dict.fromkeys(states.groups.tolist())}
        self.expected = self._run(model)

    def errors(self, model: onnx.ModelProto) -> dict[str, float]:
        """Root mean square error by group, as a share of that of the output; of several outputs the worst."""
        got = self._run(model)
        return {
            group: max(
                _size_of(right[rows] - left[rows]) / _size_of(left[rows])
                for left, right in zip(self.expected, got, strict=True)
            )
            for group, rows in self.groups.items()
        }

    def _run(self, model: onnx.ModelProto) -> list[Array]:
        session = open_session(model)
        results = [session.run(self.outputs, fit_inputs(model, batch)) for batch in self.batches]
        return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def _size_of(values: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def _times(bundle: Bundle, proof: ProofScope) -> npt.NDArray[np.int64]:
    """Times of the schedule at which steps are proven, if there are any."""
    if bundle.manifest.unet is None:
        return np.empty(0, np.int64)
    asked = times_asked(bundle.tables(plan) for plan in bundle.manifest.plans.values())
    return np.unique(proof_times(len(bundle.alpha_bar), asked, proof).numpy().round().astype(np.int64))


def _proofs(task: _Task, model: onnx.ModelProto, measured: States) -> Iterator[GraphInputs]:
    """Batches 1, 2, 5 of what the loop feeds; then, for a step, images (or latents) at times of the schedule."""
    noised = task.noised
    timed = "time" in {value.name for value in model.graph.input}
    most = count_rows(*noised.shape[2:])
    start = 0
    for rows in first_batches(most) if timed else PROOF_BATCHES:
        yield _tensors(model, measured.take(np.arange(start, start + rows) % len(measured)))
        start += rows
    if not timed:
        yield _tensors(model, measured)
        return
    draw = np.random.default_rng(0)
    for times in np.array_split(task.times, math.ceil(len(task.times) / most)):
        clean, level = noised[times % len(noised)], task.bundle.alpha_bar[times]
        signal, noise = (np.sqrt(power)[:, None, None, None] for power in (level, 1 - level))
        x = signal * clean + noise * draw.standard_normal(clean.shape)
        fed = measured.take(times % len(measured))  # for its labels and guidance
        inputs = {**fed.inputs, "x": x.astype(np.float32), "time": times.astype(np.float32)}
        yield _tensors(model, States(inputs, fed.groups))


def _tensors(model: onnx.ModelProto, states: States) -> GraphInputs:
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in fit_inputs(model, states).items()}


def _name_products(model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """Names of products for the user: their weight's, or their own where they multiply activations."""
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes = {node.output[0]: node for node in list_products(model)}
    return [nodes[name].input[1].removesuffix(".weight") if nodes[name].input[1] in weights else name for name in names]


def replace_graphs(bundle: Bundle, precision: Precision, entries: Sequence[GraphEntry]) -> Manifest:
    """Write the manifest with these graphs in place of earlier ones, and the detector files.

    Every other file keeps the hash it had.
    """
    manifest = bundle.manifest
    others = tuple(entry for entry in manifest.graphs if entry.precision != precision)
    old = {entry.file for entry in manifest.graphs} - {entry.file for entry in others}
    kept = {name: entry for name, entry in manifest.files.items() if name not in old}

    def make_manifest(files: dict[str, FileEntry]) -> Manifest:
        new = {name: files[name] for entry in entries for name in (entry.file, entry.data) if name}
        return manifest.model_copy(update={"graphs": (*others, *entries), "files": kept | new})

    made = write_bundle(bundle.path, make_manifest)
    write_detectors(replace(bundle, manifest=made))
    return made
