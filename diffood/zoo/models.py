"""The embedded torch models as `diffood export` and `diffood bench` take them. Read without torch."""

import hashlib
from pathlib import Path

from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import Manifest
from diffood.zoo.pairs import PAIRS


def embedded_models(manifest: Manifest) -> ModelSources | None:
    """The embedded models where a bundle was exported from them, else None."""
    if manifest.unet is None:
        return None
    known = (manifest.unet.weights_sha256, manifest.classifier.weights_sha256)
    for pair in PAIRS.values():
        if tuple(map(_sha256, (pair.unet_weights, pair.classifier_weights))) == known:
            return ModelSources(pair.unet, ClassifierSource(pair.classifier, pair.classifier_weights))
    return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
