"""Adds FP16 graphs to a bundle, made of its FP32 graphs: no source model is needed. Each is compared with FP32."""

import tempfile
from pathlib import Path

import onnx
import onnx_ir
import torch

from diffood.export.int8.quantize import load_with_weights, replace_graphs
from diffood.export.onnx.half_precision import halve, name_outside_layers
from diffood.export.onnx.precision import LIMITS, prove_types
from diffood.export.onnx.proof import prove_equal, prove_structure, run_onnx, strip_metadata
from diffood.export.onnx.samples import DrawnInputs, InputSampler, ProofInputs, proof_times, times_asked
from diffood.export.onnx.weights_file import WeightsFile
from diffood.export.request import ProofScope
from diffood.runtime.bundle.bundle import Bundle, GraphEntry, Manifest, Role, open_bundle
from diffood.runtime.bundle.trust import Trust
from diffood.runtime.progress import Say

HALVED: tuple[Role, ...] = ("classify", "step_plain", "step_guided")
"""Autoencoders stay FP32, as in INT8: some overflow, and exporting their models tries it."""


def halve_bundle(bundle_path: Path, report: Say, proof: ProofScope = "quick", trust: Trust | None = None) -> Manifest:
    """Write FP16 graphs into a bundle and name them in its manifest, last.

    Layers are halved; preparing images, embedding times and updating steps stays FP32, as where torch's models are
    halved. The bundle is unchanged where an error is raised.

    Args:
        bundle_path: The bundle's folder.
        report: Gets a line on each graph.
        proof: At which times of the schedule steps are compared with FP32.
        trust: What is asked of the bundle; None: what the environment asks.

    Raises:
        BundleError: It is not a bundle.
        ExportError: A graph cannot be halved, or differs too much from FP32.

    """
    bundle = open_bundle(bundle_path, trust)
    asked = times_asked(bundle.tables(plan) for plan in bundle.manifest.plans.values())
    times = proof_times(len(bundle.alpha_bar), asked, proof) if bundle.manifest.unet else torch.empty(0)
    exact = [entry for entry in bundle.manifest.graphs if entry.precision == "fp32"]
    with tempfile.TemporaryDirectory(prefix=".fp16.", dir=bundle_path) as scratch:
        folder, entries = Path(scratch), []
        for entry in exact:
            if entry.role in HALVED:
                entries.append(_halve_graph(bundle, entry, folder, report, times))
            else:
                entries.append(entry.model_copy(update={"precision": "fp16"}))
                report(f"{entry.role:<17} stays fp32 in the fp16 variant: {entry.file}")
        for file in folder.iterdir():
            file.replace(bundle_path / file.name)
    return replace_graphs(bundle, "fp16", entries)


def _halve_graph(bundle: Bundle, entry: GraphEntry, folder: Path, report: Say, times: torch.Tensor) -> GraphEntry:
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
    samples = ProofInputs(InputSampler(_drawn_inputs(bundle), entry.role), 0, times)
    found = prove_equal(run_onnx(bundle.path / entry.file, outputs), path, outputs, iter(samples), LIMITS["fp16"])
    size = (path.stat().st_size + (weights.path.stat().st_size if data else 0)) / 1e6
    report(f"{path.stem:<17} {size:.1f} MB, of the fp32 graph, within {found.error:.0e} of it on {found.rows} inputs")
    return entry.model_copy(
        update={"precision": "fp16", "file": path.name, "data": data, "error": found.error, "weights": counts}
    )


def _drawn_inputs(bundle: Bundle) -> DrawnInputs:
    manifest = bundle.manifest
    labelled = manifest.unet and manifest.unet.labels != "none"
    labels = len(manifest.class_names) if labelled else 0
    return DrawnInputs(manifest.image, manifest.noised_shape, labels, len(bundle.alpha_bar))
