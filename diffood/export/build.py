"""Makes a bundle: loads both models, exports and proves their graphs, writes the manifest and golden values."""

import importlib.metadata
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch

from diffood import __version__
from diffood.errors import ExportError, UsageError
from diffood.export.class_names import describe_repeated_names
from diffood.export.first_look import look_at_images
from diffood.export.golden import write_golden
from diffood.export.graphs.writing import GraphWriter, write_graphs
from diffood.export.images import read_sample
from diffood.export.onnx.samples import PROOF_OPERATIONS, proof_times, times_asked
from diffood.export.preflight import require_free
from diffood.export.request import IMAGES, ExportRequest
from diffood.export.sources.classifiers.classifier import Classifier
from diffood.export.sources.model_sources import ModelSources, load_models
from diffood.export.sources.unets.autoencoder import Autoencoder
from diffood.export.sources.unets.unet import UNet
from diffood.runtime.assembly.files import write_detectors
from diffood.runtime.bundle.bundle import (
    FORMAT,
    FileEntry,
    GraphEntry,
    LatentEntry,
    Manifest,
    ModelEntry,
    Precision,
    UNetEntry,
    open_bundle,
)
from diffood.runtime.bundle.trained import TRAINED, pack_trained
from diffood.runtime.bundle.trust import NOTHING_ASKED
from diffood.runtime.bundle.writing import write_bundle
from diffood.runtime.golden import GOLDEN_IMAGES
from diffood.runtime.method.plan import PLANS, PLANS_WITHOUT_UNET, Plan
from diffood.runtime.method.witnesses.definition import INSIDE
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.inner_maps import SHRINKING, find_inner_maps
from diffood.runtime.progress import Say, ShowProgress, hide_progress
from diffood.runtime.writable import whole_folder

NOISE_LEVELS, GOLDEN = "noise_levels.npz", "golden.npz"
UNGUIDED = {"none": "the UNet has no labels", "class": "the UNet has labels for classes but no null class"}


def export_bundle(request: ExportRequest, report: Say, show_progress: ShowProgress = hide_progress) -> Manifest:
    """Make the bundle folder of a request, all of it or nothing.

    Args:
        request: Its sources are the models; the classifier is tried on its images, engines are not looked at.
        report: Gets a line for each thing found or proven.
        show_progress: Shows how many proofs are done.

    Raises:
        ExportError: A model does not fit, or a proof failed.
        UsageError: The folder exists, or the class names do not fit.

    """
    assert request.sources is not None
    output = request.bundle
    require_free(output, overwrite=request.overwrite)
    unet, classifier = load_models(request.sources)
    class_names = _class_names(request.sources, classifier, unet)
    _report_models(unet, classifier, class_names, report)
    class_names = class_names or tuple(f"class {index}" for index in range(classifier.classes))
    if request.images:
        images = read_sample(request.images, unet.image, IMAGES, lambda _: None, request.rules)
        look_at_images(classifier, images, class_names, report)
    steps, plans = len(unet.schedule.alpha_bar), _plans(unet, classifier)
    tables = (plan.tables(unet.schedule.alpha_bar, unet.schedule.prediction) for plan in plans.values())
    with whole_folder(output) as folder:
        writer = GraphWriter(
            folder,
            unet,
            classifier,
            steps=steps,
            times=proof_times(steps, times_asked(tables), request.proof),
            opset=request.opset,
            largest_inside=request.largest_inside,
            report=report,
            show_progress=show_progress,
        )
        manifest = _write_files(writer, class_names, plans, request.precisions)
        write_detectors(open_bundle(folder, NOTHING_ASKED))
        if output.exists():
            shutil.rmtree(output)
    return manifest


def _class_names(sources: ModelSources, classifier: Classifier, unet: UNet) -> tuple[str, ...] | None:
    """The user's names, the classifier's, or those that the UNet's labels have.

    Raises:
        ExportError: The UNet was trained with these classes in another order.
        UsageError: There are more names or fewer than classes.
    """
    names = sources.class_names or classifier.class_names
    if names and len(names) != classifier.classes:
        raise UsageError(f"{len(names)} class names for a classifier of {classifier.classes} classes; give one each.")
    if not names or not unet.class_names:
        return names or (unet.class_names if unet.class_names and len(unet.class_names) == classifier.classes else None)
    for index, name in enumerate(unet.class_names):
        if name in names and (other := names.index(name)) != index:
            raise ExportError(
                f"{name!r} is class {index} of the UNet and class {other} of the classifier: both need one order. "
                "Check --class-names, or train the UNet with --classifier, which takes the classifier's order."
            )
    return names


def _report_models(unet: UNet, classifier: Classifier, class_names: tuple[str, ...] | None, report: Say) -> None:
    if unet.denoises:
        _report_unet(unet, classifier, report)
    else:
        image = unet.image
        report(f"unet        none: plans of the classifier alone; images {image.channels}x{image.height}x{image.width}")
    named = "unnamed, --class-names FILE names them"
    if class_names:
        named = ", ".join(class_names[:3]) + ("…" if class_names[3:] else "")
    report(f"classifier  {classifier.origin}: {classifier.classes} classes: {named}")
    report(f"prepared    {classifier.prepared}")
    repeated = describe_repeated_names(class_names or ())
    for note in (*unet.notes, *classifier.notes, *([repeated] if repeated else [])):
        report(f"note        {note}")
    report(f"features    {classifier.features} values, {classifier.features_from}")


def _report_unet(unet: UNet, classifier: Classifier, report: Say) -> None:
    labels, schedule = unet.labels(classifier.classes), unet.schedule
    report(f"unet        {unet.origin}: {unet.channels}x{unet.height}x{unet.width}, labels: {labels}")
    if labels != "class+null":
        report(f"guidance    none: {UNGUIDED[labels]}; the plans are unguided")
    if unet.autoencoder:
        image = unet.image
        report(f"autoencoder {unet.autoencoder.origin}: from and to {image.channels}x{image.height}x{image.width}")
    report(f"schedule    {schedule.origin}: {len(schedule.alpha_bar)} steps, predicts {schedule.prediction}")


def _write_files(
    writer: GraphWriter, class_names: tuple[str, ...], plans: dict[str, Plan], precisions: Collection[Precision]
) -> Manifest:
    """Write every file of the bundle."""
    unet, classifier, schedule = writer.unet, writer.classifier, writer.unet.schedule
    graphs, operations = write_graphs(writer, precisions)
    plans = {name: _measurable_plan(plan, writer.folder, graphs) for name, plan in plans.items()}
    if unet.denoises:
        np.savez(writer.folder / NOISE_LEVELS, allow_pickle=False, alpha_bar=schedule.alpha_bar)
    if unet.trained_on is not None:
        (writer.folder / TRAINED).write_bytes(pack_trained(unet.trained_on))

    def make_manifest(files: dict[str, FileEntry]) -> Manifest:
        return Manifest(
            format=FORMAT,
            image=unet.image,
            class_names=class_names,
            feature_count=classifier.features,
            classifier=ModelEntry(
                origin=classifier.origin, weights_sha256=classifier.sha256, parameters=classifier.parameters
            ),
            unet=_unet_entry(unet, classifier) if unet.denoises else None,
            noise_levels=NOISE_LEVELS if unet.denoises else None,
            golden=GOLDEN,
            graphs=tuple(graphs),
            plans=plans,
            default_plan=next(iter(plans)),
            files=files,
            versions=_versions(),
            latent=_latent_entry(unet.autoencoder) if unet.autoencoder else None,
        )

    write_bundle(writer.folder, make_manifest)
    return write_golden(writer.folder, affordable_plans(unet, plans, operations))


def affordable_plans(unet: UNet, plans: dict[str, Plan], operations: int) -> list[str]:
    """Names of the plans to have golden values: those that cost no more than a proof, and the cheapest of each graph.

    operations: Floating-point operations of a UNet evaluation.
    """
    schedule = unet.schedule
    cost = {
        name: plan.evaluations(plan.tables(schedule.alpha_bar, schedule.prediction)) * GOLDEN_IMAGES * operations
        for name, plan in plans.items()
    }
    by_graph = [[name for name in plans if (plans[name].guidance > 0) == guided] for guided in (False, True)]
    cheapest = {min(names, key=cost.__getitem__) for names in by_graph if names}
    return [name for name in plans if name in cheapest or cost[name] <= PROOF_OPERATIONS]


def _unet_entry(unet: UNet, classifier: Classifier) -> UNetEntry:
    return UNetEntry(
        origin=unet.origin,
        weights_sha256=unet.sha256,
        parameters=_parameters(unet.model),
        prediction=unet.schedule.prediction,
        labels=unet.labels(classifier.classes),
        label_count=unet.label_count,
        schedule_origin=unet.schedule.origin,
    )


def _plans(unet: UNet, classifier: Classifier) -> dict[str, Plan]:
    """The plans of a bundle by name, its default plan first."""
    if not unet.denoises:
        return PLANS_WITHOUT_UNET
    guided = unet.labels(classifier.classes) == "class+null"
    return {name: _fit_plan(plan, len(unet.schedule.alpha_bar), guided=guided) for name, plan in PLANS.items()}


def _measurable_plan(plan: Plan, folder: Path, graphs: Sequence[GraphEntry]) -> Plan:
    """Leave the witness inside out where the classifier has no feature maps, as a transformer has none."""
    for graph in graphs:
        if graph.role == "classify" and INSIDE in plan.witnesses:
            message = messages.Model.FromString((folder / graph.file).read_bytes())
            if not find_inner_maps(message.graph, SHRINKING):
                return plan.changed({"witnesses": [name for name in plan.witnesses if name != INSIDE]})
    return plan


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
