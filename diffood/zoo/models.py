"""The embedded torch models as `diffood export` and `diffood bench` take them. Read without torch."""

import hashlib

from diffood import zoo
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import Manifest


def embedded_models(manifest: Manifest) -> ModelSources | None:
    """The embedded models where a bundle was exported from them, else None."""
    if manifest.unet is None:
        return None
    known = (manifest.unet.weights_sha256, manifest.classifier.weights_sha256)
    found = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in (zoo.UNET_WEIGHTS, zoo.CLASSIFIER_WEIGHTS))
    if found != known:
        return None
    return ModelSources(zoo.UNET, ClassifierSource(f"{zoo.CLASSIFIER}:{zoo.FACTORY}", zoo.CLASSIFIER_WEIGHTS))
