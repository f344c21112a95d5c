"""Puts a bundle together: loads both models, exports and proves their graphs, writes golden values and manifest."""

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from diffood import __version__
from diffood.errors import UsageError
from diffood.export.graphs import ClassifyGraph, StepGuided, StepLabelled, StepPlain
from diffood.export.onnx import EXAMPLE_BATCH, OPSET, PROOF_BATCHES, Inputs, Proof, export_onnx, prove_equal
from diffood.export.sources.classifier import Classifier, Preprocessing, load_classifier
from diffood.export.sources.scheduler import NoiseSchedule, load_schedule
from diffood.export.sources.unet import UNet, load_unet
from diffood.runtime.bundle import MANIFEST, FileEntry, GraphEntry, Manifest, ModelEntry, Role, UNetEntry, write_bundle
from diffood.runtime.images import ImageShape
from diffood.runtime.plan import DEFAULT, REFERENCE, Plan

NOISE_LEVELS, GOLDEN = "noise_levels.npz", "golden.npz"
GOLDEN_IMAGES = 4
PROOF_ROWS = 25  # rows a batch while every time of the schedule is proven
STEP_OUTPUTS = ("x_next", "epsilon")
CLASSIFY_OUTPUTS = ("logits", "features")


@dataclass(frozen=True)
class Sources:
    """What the user gives: the UNet's folder, its scheduler's, the classifier and what it needs, class names."""

    unet: Path
    classifier: str
    classifier_weights: Path | None = None
    scheduler: Path | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] | None = None


def export_bundle(sources: Sources, output: Path, *, overwrite: bool, report: Callable[[str], None]) -> Manifest:
    """Make the bundle folder `output`, all of it or nothing. `report` gets a line for each thing found or proven.

    Raises ExportError (a model does not fit, a proof failed) and UsageError (output exists).
    """
    _check_output(output, overwrite=overwrite)
    unet = load_unet(sources.unet)
    schedule = load_schedule(sources.unet, sources.scheduler)
    classifier = load_classifier(
        sources.classifier, sources.classifier_weights, unet.height, unet.width, sources.preprocessing
    )
    names = sources.class_names or tuple(f"class {index}" for index in range(classifier.classes))
    if len(names) != classifier.classes:
        raise UsageError(f"{len(names)} class names for a classifier of {classifier.classes} classes; give one each.")
    labels = unet.labels(classifier.classes)
    report(f"unet        {unet.origin}: {unet.channels}x{unet.height}x{unet.width}, labels: {labels}")
    report(f"schedule    {schedule.origin}: {len(schedule.alpha_bar)} steps, predicts {schedule.prediction}")
    report(f"classifier  {classifier.origin}: {classifier.classes} classes")
    report(f"features    {classifier.features} values, {classifier.features_from}")
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        manifest = _fill(folder, unet, schedule, classifier, labels, names, report)
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
    labels: Literal["none", "class", "class+null"],
    names: tuple[str, ...],
    report: Callable[[str], None],
) -> Manifest:
    golden: dict[str, np.ndarray] = {}
    graphs = []
    for role, module, outputs in _modules(unet, classifier, labels):
        path = folder / f"{role}.onnx"
        inputs = _Inputs(unet, classifier.classes, len(schedule.alpha_bar), role, labels)
        export_onnx(module, inputs.draw(EXAMPLE_BATCH), outputs, path)
        proof = prove_equal(module, path, outputs, inputs.proofs())
        report(_proven(role, path, proof))
        sample = inputs.draw(GOLDEN_IMAGES)
        with torch.no_grad():
            values = module(**sample)
        golden |= {f"{role}.in.{name}": value.numpy() for name, value in sample.items()}
        golden |= {f"{role}.out.{name}": value.numpy() for name, value in zip(outputs, values, strict=True)}
        graphs.append(GraphEntry(role=role, file=path.name, precision="fp32", opset=OPSET))
    np.savez(folder / GOLDEN, allow_pickle=False, **golden)
    np.savez(folder / NOISE_LEVELS, allow_pickle=False, alpha_bar=schedule.alpha_bar)

    def make_manifest(files: dict[str, FileEntry]) -> Manifest:
        return Manifest(
            format=1,
            image=ImageShape(unet.channels, unet.height, unet.width),
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
                for name, plan in (("default", DEFAULT), ("reference", REFERENCE))
            },
            default_plan="default",
            files=files,
            versions=_versions(),
        )

    return write_bundle(folder, make_manifest)


def _modules(
    unet: UNet, classifier: Classifier, labels: str
) -> Iterator[tuple[Role, torch.nn.Module, tuple[str, ...]]]:
    classify = ClassifyGraph(classifier, unet.channels, unet.height, unet.width)
    yield "classify", classify.eval(), CLASSIFY_OUTPUTS
    yield "step_plain", (StepPlain(unet) if labels == "none" else StepLabelled(unet)).eval(), STEP_OUTPUTS
    if labels == "class+null":
        yield "step_guided", StepGuided(unet).eval(), STEP_OUTPUTS


class _Inputs:
    """Draws inputs of one graph: seeded, of the size and range the loop feeds it."""

    def __init__(self, unet: UNet, classes: int, steps: int, role: Role, labels: str) -> None:
        self.unet, self.classes, self.steps, self.role, self.labels = unet, classes, steps, role, labels
        self.generator = torch.Generator().manual_seed(0)

    def draw(self, batch: int, time: torch.Tensor | None = None) -> Inputs:
        """One batch; times of the whole schedule unless given."""
        x = torch.randn(batch, self.unet.channels, self.unet.height, self.unet.width, generator=self.generator)
        if self.role == "classify":
            return {"x": x.clamp(-1, 1)}
        if time is None:
            time = torch.randint(0, self.steps, (batch,), generator=self.generator).float()
        inputs = {"x": x, "time": time}
        if self.labels != "none":
            inputs["label"] = torch.randint(0, self.classes, (batch,), generator=self.generator)
        inputs["coefficients"] = torch.tensor([[0.0, 1.0, 1.0, -1.0]]).repeat(batch, 1)
        if self.role == "step_guided":
            inputs["guidance"] = torch.full((batch,), 2.0)
        return inputs

    def proofs(self) -> Iterator[Inputs]:
        """Batches 1, 2, 5, then every time of the schedule once."""
        for batch in PROOF_BATCHES:
            yield self.draw(batch)
        if self.role != "classify":
            for times in torch.arange(self.steps, dtype=torch.float32).split(PROOF_ROWS):
                yield self.draw(len(times), times)


def _proven(role: Role, path: Path, proof: Proof) -> str:
    size = path.stat().st_size / 1e6
    return f"{role:<12}{size:.1f} MB, opset {OPSET}, equal to torch within {proof.error:.0e} on {proof.rows} inputs"


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
