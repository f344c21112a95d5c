"""Puts a bundle together: loads both models, exports and proves their graphs, writes golden values and manifest."""

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from diffood import __version__
from diffood.errors import ExportError, UsageError
from diffood.export.autoencoder_graphs import DecodeGraph, EncodeGraph
from diffood.export.graphs import ClassifyGraph, StepGuided, StepLabelled, StepPlain
from diffood.export.normalisation import fused_group_norms
from diffood.export.onnx import EXAMPLE_BATCH, OPSET, Proof, export_onnx, prove_equal, run_onnx, run_torch
from diffood.export.precision import LIMITS, prove_types
from diffood.export.samples import Samples
from diffood.export.sources.autoencoder import Autoencoder
from diffood.export.sources.classifier import Classifier, Preprocessing, load_classifier
from diffood.export.sources.latent import denoiser_folder, load_denoiser
from diffood.export.sources.scheduler import NoiseSchedule, load_schedule
from diffood.export.sources.unet import UNet
from diffood.runtime.bundle import (
    MANIFEST,
    FileEntry,
    GraphEntry,
    LatentEntry,
    Manifest,
    ModelEntry,
    Precision,
    Role,
    UNetEntry,
    write_bundle,
)
from diffood.runtime.plan import DEFAULT, FAST, PLAIN, REFERENCE, Plan

NOISE_LEVELS, GOLDEN = "noise_levels.npz", "golden.npz"
GOLDEN_IMAGES = 4
FP32_ALONE: tuple[Precision, ...] = ("fp32",)
STEP_OUTPUTS = ("x_next", "epsilon")
CLASSIFY_OUTPUTS = ("logits", "features")
AUTOENCODER: tuple[Role, ...] = ("encode", "decode")


@dataclass(frozen=True)
class Sources:
    """What the user gives: the UNet's folder, its scheduler's, the classifier and what it needs, class names."""

    unet: Path
    classifier: str
    classifier_weights: Path | None = None
    scheduler: Path | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] | None = None


def export_bundle(
    sources: Sources,
    output: Path,
    *,
    overwrite: bool,
    report: Callable[[str], None],
    precisions: Collection[Precision] = FP32_ALONE,
    opset: int = OPSET,
) -> Manifest:
    """Make the bundle folder `output`, all of it or nothing. `report` gets a line for each thing found or proven.

    Raises ExportError (a model does not fit, a proof failed) and UsageError (output exists).
    """
    _check_output(output, overwrite=overwrite)
    unet = load_denoiser(sources.unet)
    schedule = load_schedule(denoiser_folder(sources.unet), sources.scheduler)
    classifier = load_classifier(
        sources.classifier, sources.classifier_weights, unet.image.height, unet.image.width, sources.preprocessing
    )
    names = sources.class_names or tuple(f"class {index}" for index in range(classifier.classes))
    if len(names) != classifier.classes:
        raise UsageError(f"{len(names)} class names for a classifier of {classifier.classes} classes; give one each.")
    labels = unet.labels(classifier.classes)
    report(f"unet        {unet.origin}: {unet.channels}x{unet.height}x{unet.width}, labels: {labels}")
    if unet.autoencoder:
        image = unet.image
        report(f"autoencoder {unet.autoencoder.origin}: from and to {image.channels}x{image.height}x{image.width}")
    report(f"schedule    {schedule.origin}: {len(schedule.alpha_bar)} steps, predicts {schedule.prediction}")
    report(f"classifier  {classifier.origin}: {classifier.classes} classes")
    report(f"features    {classifier.features} values, {classifier.features_from}")
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        manifest = _fill(folder, unet, schedule, classifier, names, precisions, opset, report)
        folder.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return manifest


def _check_output(output: Path, *, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise UsageError(f"{output} exists and is not a bundle; choose another --output, it would be deleted.")
    if not overwrite:
        raise UsageError(f"{output} is a bundle already; choose another --output, or replace it with --overwrite.")


def _fill(
    folder: Path,
    unet: UNet,
    schedule: NoiseSchedule,
    classifier: Classifier,
    names: tuple[str, ...],
    precisions: Collection[Precision],
    opset: int,
    report: Callable[[str], None],
) -> Manifest:
    labels = unet.labels(classifier.classes)
    graphs = _export_fp32(folder, unet, schedule, classifier, opset, report)
    if "fp16" in precisions:
        graphs += _export_fp16(folder, unet, schedule, classifier, opset, graphs, report)
    np.savez(folder / NOISE_LEVELS, allow_pickle=False, alpha_bar=schedule.alpha_bar)

    def make_manifest(files: dict[str, FileEntry]) -> Manifest:
        return Manifest(
            format=1,
            image=unet.image,
            class_names=names,
            feature_count=classifier.features,
            classifier=ModelEntry(
                origin=classifier.origin, weights_sha256=classifier.sha256, parameters=_parameters(classifier.model)
            ),
            unet=UNetEntry(
                origin=unet.origin,
                weights_sha256=unet.sha256,
                parameters=_parameters(unet.model),
                prediction=schedule.prediction,
                labels=labels,
                label_count=unet.label_count,
                schedule_origin=schedule.origin,
            ),
            noise_levels=NOISE_LEVELS,
            golden=GOLDEN,
            graphs=tuple(graphs),
            plans={
                name: _fit_plan(plan, len(schedule.alpha_bar), guided=labels == "class+null")
                for name, plan in (("default", DEFAULT), ("fast", FAST), ("plain", PLAIN), ("reference", REFERENCE))
            },
            default_plan="default",
            files=files,
            versions=_versions(),
            latent=_latent_entry(unet.autoencoder) if unet.autoencoder else None,
        )

    return write_bundle(folder, make_manifest)


def _export_fp32(
    folder: Path, unet: UNet, schedule: NoiseSchedule, classifier: Classifier, opset: int, report: Callable[[str], None]
) -> list[GraphEntry]:
    """Write the graphs everything is measured against, proven equal to torch, and golden values."""
    golden: dict[str, np.ndarray] = {}
    graphs = []
    for role, module, outputs in _modules(unet, classifier):
        path = folder / f"{role}.onnx"
        samples = Samples(unet, classifier.classes, len(schedule.alpha_bar), role)
        with fused_group_norms(module):
            export_onnx(module, samples.draw(EXAMPLE_BATCH), outputs, path, opset)
        proof = prove_equal(run_torch(module), path, outputs, samples.proofs(), LIMITS["fp32"])
        report(f"{_size(path, opset)}, equal to torch within {proof.error:.0e} on {proof.rows} inputs")
        graphs.append(_entry(role, path, "fp32", opset, proof))
        sample = samples.draw(GOLDEN_IMAGES)
        golden |= {f"{role}.in.{name}": value.numpy() for name, value in sample.items()}
        golden |= {f"{role}.out.{name}": value for name, value in zip(outputs, run_torch(module)(sample), strict=True)}
    np.savez(folder / GOLDEN, allow_pickle=False, **golden)
    return graphs


def _export_fp16(
    folder: Path,
    unet: UNet,
    schedule: NoiseSchedule,
    classifier: Classifier,
    opset: int,
    exact: list[GraphEntry],
    report: Callable[[str], None],
) -> list[GraphEntry]:
    """Halve the models, in place, and write them again, measured against the FP32 graphs at every time.

    Some autoencoders overflow in half precision: a half that is no longer itself stays FP32, in this variant too.
    """
    unet.model.half()
    classifier.model.half()
    if unet.autoencoder:
        unet.autoencoder.model.half()
    graphs = []
    for role, module, outputs in _modules(unet, classifier):
        path = folder / f"{role}.fp16.onnx"
        samples = Samples(unet, classifier.classes, len(schedule.alpha_bar), role)
        try:
            export_onnx(module, samples.draw(EXAMPLE_BATCH), outputs, path, opset)
            expected = run_onnx(folder / f"{role}.onnx", outputs)
            proof = prove_equal(expected, path, outputs, samples.proofs(), LIMITS["fp16"])
            graphs.append(_entry(role, path, "fp16", opset, proof))
            report(f"{_size(path, opset)}, within {proof.error:.0e} of fp32 on {proof.rows} inputs")
        except ExportError as error:
            if role not in AUTOENCODER:
                raise
            path.unlink(missing_ok=True)
            graphs += [entry.model_copy(update={"precision": "fp16"}) for entry in exact if entry.role == role]
            report(f"{role:<17} stays fp32 in the fp16 variant: {error}")
    return graphs


def _entry(role: Role, path: Path, precision: Precision, opset: int, proof: Proof) -> GraphEntry:
    weights = prove_types(path, precision)
    return GraphEntry(role=role, file=path.name, precision=precision, opset=opset, error=proof.error, weights=weights)


def _size(path: Path, opset: int) -> str:
    return f"{path.stem:<17} {path.stat().st_size / 1e6:.1f} MB, opset {opset}"


def _modules(unet: UNet, classifier: Classifier) -> Iterator[tuple[Role, torch.nn.Module, tuple[str, ...]]]:
    labels = unet.labels(classifier.classes)
    image = unet.image
    classify = ClassifyGraph(classifier, image.channels, image.height, image.width)
    yield "classify", classify.eval(), CLASSIFY_OUTPUTS
    yield "step_plain", (StepPlain(unet) if labels == "none" else StepLabelled(unet)).eval(), STEP_OUTPUTS
    if labels == "class+null":
        yield "step_guided", StepGuided(unet).eval(), STEP_OUTPUTS
    if unet.autoencoder:
        yield "encode", EncodeGraph(unet.autoencoder).eval(), ("z",)
        yield "decode", DecodeGraph(unet.autoencoder).eval(), ("x",)


def _latent_entry(autoencoder: Autoencoder) -> LatentEntry:
    return LatentEntry(
        origin=autoencoder.origin,
        weights_sha256=autoencoder.sha256,
        parameters=_parameters(autoencoder.model),
        channels=autoencoder.channels,
        height=autoencoder.height,
        width=autoencoder.width,
    )


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _fit_plan(plan: Plan, steps: int, *, guided: bool) -> Plan:
    """Scale the times of a plan made for 1,000 training steps, and drop guidance where there is no null class."""
    scale = steps / 1000
    starts = sorted({min(steps - 1, max(1, round(start * scale))) for start in plan.start_times})
    stride = max(1, round(plan.stride * scale))
    return plan.changed({"start_times": starts, "stride": stride, "guidance": plan.guidance if guided else 0.0})


def _versions() -> dict[str, str]:
    packages = ("torch", "diffusers", "onnx", "onnxruntime", "numpy")
    return {"diffood": __version__} | {name: importlib.metadata.version(name) for name in packages}
