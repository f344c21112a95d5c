"""FP16 graphs of the zoo's models in a copy of its bundle, and bundles changed with true hashes, for several tests."""

import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import get_args

import pytest
from sealed import sealed

from diffood import zoo
from diffood.runtime.bundle.bundle import Role

ERROR = 2e-3  # against FP32, the largest of the three graphs


def add_halved_graphs(bundle: Path, roles: Collection[str] = get_args(Role)) -> None:
    """Export the zoo's models in FP16 into a copy of its bundle, as export_bundle does, but for the proofs.

    Those take minutes; the error is what they found.
    """
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from diffood.export.graphs.modules import ClassifyGraph, StepGuided, StepLabelled
    from diffood.export.onnx.proof import export_onnx
    from diffood.export.onnx.samples import DrawnInputs, InputSampler
    from diffood.export.sources.classifiers.classifier import load_classifier
    from diffood.export.sources.classifiers.source import ClassifierSource
    from diffood.export.sources.unets.load import load_unet

    unet = load_unet(zoo.UNET)
    spec = f"{zoo.CLASSIFIER}:{zoo.FACTORY}"
    classifier = load_classifier(ClassifierSource(spec, zoo.CLASSIFIER_WEIGHTS), unet.height, unet.width)
    unet.model.half()
    classifier.model.half()
    modules = {
        "classify": (ClassifyGraph(classifier, unet.channels, unet.height, unet.width), ("logits", "features")),
        "step_plain": (StepLabelled(unet), ("x_next", "epsilon")),
        "step_guided": (StepGuided(unet), ("x_next", "epsilon")),
    }
    drawn = DrawnInputs(unet.image, (unet.channels, unet.height, unet.width), classifier.classes, 1000)
    graphs = []
    for role, (module, outputs) in modules.items():
        if role not in roles:
            continue
        example = InputSampler(drawn, role).draw(2)  # type: ignore[arg-type]
        export_onnx(module.eval(), example, outputs, bundle / f"{role}.fp16.onnx")
        graphs.append(
            {"role": role, "file": f"{role}.fp16.onnx", "precision": "fp16", "opset": 21, "error": ERROR, "weights": {}}
        )
    reseal(bundle, lambda manifest: manifest["graphs"].extend(graphs))


def reseal(bundle: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest of a bundle and give every file in it its present hash."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    change(manifest)
    names = set(manifest["files"]) | {graph["file"] for graph in manifest["graphs"]}
    for name in names:
        data = (bundle / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (bundle / "manifest.json").write_bytes(sealed(manifest))
