"""Adds FP16 graphs to a bundle, made of its FP32 graphs: no source model is needed. Each is compared with FP32."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import torch

from diffood.errors import ExportError
from diffood.export.int8.quantize import load_with_weights, replace_graphs
from diffood.export.onnx.half_precision import halve, name_outside_layers
from diffood.export.onnx.precision import LIMITS, prove_types
from diffood.export.onnx.proof import GraphInputs, prove_equal, prove_structure, run_onnx, strip_metadata
from diffood.export.onnx.samples import count_rows, proof_times, times_asked
from diffood.export.onnx.weights_file import WeightsFile
from diffood.export.request import ProofScope
from diffood.runtime.bundle.arrays import load_arrays
from diffood.runtime.bundle.bundle import Bundle, GraphEntry, Manifest, Role, open_bundle
from diffood.runtime.progress import Say

HALVED: tuple[Role, ...] = ("classify", "step_plain", "step_guided")
"""Autoencoders stay FP32, as in INT8: some overflow, and exporting their models tries it."""


def halve_bundle(bundle_path: Path, report: Say, proof: ProofScope = "quick") -> Manifest:
    """Write FP16 graphs into a bundle and name them in its manifest, last.

    Layers are halved; preparing images, embedding times and updating steps stays FP32, as where torch's models are
    halved. The bundle is unchanged where an error is raised.

    Args:
        bundle_path: The bundle's folder.
        report: Gets a line on each graph.
        proof: At which times of the schedule steps are compared with FP32.

    Raises:
        BundleError: It is not a bundle.
        ExportError: A graph cannot be halved, or differs too much from FP32.

    """
    bundle = open_bundle(bundle_path)
    golden = load_arrays(bundle.read(bundle.manifest.golden), bundle.manifest.golden)
    exact = [entry for entry in bundle.manifest.graphs if entry.precision == "fp32"]
    with tempfile.TemporaryDirectory(prefix=".fp16.", dir=bundle_path) as scratch:
        folder, entries = Path(scratch), []
        for entry in exact:
            if entry.role in HALVED:
                entries.append(_halve_graph(bundle, entry, golden, folder, report, proof))
            else:
                entries.append(entry.model_copy(update={"precision": "fp16"}))
                report(f"{entry.role:<17} stays fp32 in the fp16 variant: {entry.file}")
        for file in folder.iterdir():
            file.replace(bundle_path / file.name)
    return replace_graphs(bundle, "fp16", entries)


def _halve_graph(
    bundle: Bundle, entry: GraphEntry, golden: dict[str, npt.NDArray[np.generic]], folder: Path, report: Say,
    proof: ProofScope,
) -> GraphEntry:  # fmt: skip
    model = load_with_weights(bundle, entry)
    outputs = tuple(value.name for value in model.graph.output)
    inputs = tuple(value.name for value in model.graph.input)
    made = onnx_ir.from_proto(halve(model, name_outside_layers(model)))
    weights = WeightsFile(folder / f"{Path(entry.data or entry.file).stem}.fp16.weights")
    data = weights.path.name if weights.move(made) else None
    path = folder / f"{entry.role}.fp16.onnx"
    saved = onnx_ir.to_proto(made)
    strip_metadata(saved)
    onnx.save(saved, path)
    prove_structure(path, inputs, outputs, entry.opset, data)
    counts = prove_types(path, "fp16")
    samples = _proofs(bundle, entry.role, golden, proof)
    found = prove_equal(run_onnx(bundle.path / entry.file, outputs), path, outputs, samples, LIMITS["fp16"])
    size = (path.stat().st_size + (weights.path.stat().st_size if data else 0)) / 1e6
    report(f"{path.stem:<17} {size:.1f} MB, of the fp32 graph, within {found.error:.0e} of it on {found.rows} inputs")
    return entry.model_copy(
        update={"precision": "fp16", "file": path.name, "data": data, "error": found.error, "weights": counts}
    )


def _proofs(
    bundle: Bundle, role: Role, golden: dict[str, npt.NDArray[np.generic]], proof: ProofScope
) -> Iterator[GraphInputs]:
    """The golden inputs one by one and together; for a step again at times of the schedule."""
    prefix = f"{role}.in."
    given = {name.removeprefix(prefix): values for name, values in golden.items() if name.startswith(prefix)}
    if not given:
        raise ExportError(f"{bundle.path} has no golden inputs of {role}: export it again from the models.")
    count = len(next(iter(given.values())))

    def take(rows: npt.NDArray[np.int64], **changed: npt.NDArray[np.generic]) -> GraphInputs:
        picked = {name: values[rows] for name, values in given.items()} | changed
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in picked.items()}

    yield take(np.arange(1))
    yield take(np.arange(count))
    if "time" not in given:
        return
    asked = times_asked(bundle.tables(plan) for plan in bundle.manifest.plans.values())
    _, height, width = bundle.manifest.lane_shape
    for times in proof_times(len(bundle.alpha_bar), asked, proof).split(count_rows(height, width)):
        yield take(np.arange(len(times)) % count, time=times.numpy())
