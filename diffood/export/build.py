"""Puts a bundle together: loads both models, exports and proves their graphs, writes golden values and manifest."""

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch

from diffood import __version__
from diffood.errors import UsageError
from diffood.export.graphs.writing import GraphWriter, write_graphs
from diffood.export.onnx.proof import OPSET
from diffood.export.onnx.weights_file import LARGEST_INSIDE
from diffood.export.sources.classifiers.classifier import Classifier
from diffood.export.sources.model_sources import Sources, load_models
from diffood.export.sources.unets.autoencoder import Autoencoder
from diffood.export.sources.unets.scheduler import NoiseSchedule
from diffood.export.sources.unets.unet import UNet
from diffood.runtime.bundle.bundle import (
    MANIFEST,
    FileEntry,
    LatentEntry,
    Manifest,
    ModelEntry,
    Precision,
    UNetEntry,
    write_bundle,
)
from diffood.runtime.method.plan import DEFAULT, FAST, PLAIN, REFERENCE, Plan

NOISE_LEVELS, GOLDEN = "noise_levels.npz", "golden.npz"
FP32_ALONE: tuple[Precision, ...] = ("fp32",)
UNGUIDED = {"none": "the UNet knows no labels", "class": "the UNet is told the class and knows no null class"}


def export_bundle(
    sources: Sources,
    output: Path,
    *,
    overwrite: bool,
    report: Callable[[str], None],
    precisions: Collection[Precision] = FP32_ALONE,
    opset: int = OPSET,
    largest_inside: int = LARGEST_INSIDE,
) -> Manifest:
    """Make the bundle folder `output`, all of it or nothing. `report` gets a line for each thing found or proven.

    largest_inside: bytes of weights above which a graph keeps them in a file beside it.
    Raises ExportError (a model does not fit, a proof failed) and UsageError (output exists).
    """
    _check_output(output, overwrite=overwrite)
    unet, classifier = load_models(sources)
    schedule = unet.schedule
    names = sources.class_names or classifier.class_names
    named = ", ".join(names[:3]) + ("…" if names[3:] else "") if names else "unnamed, --class-names FILE names them"
    names = names or tuple(f"class {index}" for index in range(classifier.classes))
    if len(names) != classifier.classes:
        raise UsageError(f"{len(names)} class names for a classifier of {classifier.classes} classes; give one each.")
    labels = unet.labels(classifier.classes)
    report(f"unet        {unet.origin}: {unet.channels}x{unet.height}x{unet.width}, labels: {labels}")
    if labels != "class+null":
        report(f"guidance    none: {UNGUIDED[labels]}; the plans are without")
    if unet.autoencoder:
        image = unet.image
        report(f"autoencoder {unet.autoencoder.origin}: from and to {image.channels}x{image.height}x{image.width}")
    report(f"schedule    {schedule.origin}: {len(schedule.alpha_bar)} steps, predicts {schedule.prediction}")
    report(f"classifier  {classifier.origin}: {classifier.classes} classes: {named}")
    report(f"prepared    {classifier.prepared}")
    for note in classifier.notes:
        report(f"note        {note}")
    report(f"features    {classifier.features} values, {classifier.features_from}")
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        manifest = _fill(folder, unet, schedule, classifier, names, precisions, opset, largest_inside, report)
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
    largest_inside: int,
    report: Callable[[str], None],
) -> Manifest:
    labels = unet.labels(classifier.classes)
    steps = len(schedule.alpha_bar)
    writer = GraphWriter(folder, unet, classifier, steps, opset, largest_inside, report)
    graphs, golden = write_graphs(writer, precisions)
    np.savez(folder / GOLDEN, allow_pickle=False, **golden)
    np.savez(folder / NOISE_LEVELS, allow_pickle=False, alpha_bar=schedule.alpha_bar)

    def make_manifest(files: dict[str, FileEntry]) -> Manifest:
        return Manifest(
            format=1,
            image=unet.image,
            class_names=names,
            feature_count=classifier.features,
            classifier=ModelEntry(
                origin=classifier.origin, weights_sha256=classifier.sha256, parameters=classifier.parameters
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
