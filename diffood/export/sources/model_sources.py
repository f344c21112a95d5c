"""What the user gives: where both models lie, and what they do not say themselves. Read without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from diffood.export.sources.classifiers.preprocessing import Preprocessing

if TYPE_CHECKING:
    from diffood.export.sources.classifiers.classifier import Classifier
    from diffood.export.sources.unets.unet import UNet


@dataclass(frozen=True)
class Sources:
    """The UNet's folder or checkpoint, its scheduler's, the classifier and what it needs, names.

    unet_config: a preset's name or a .json file, for a checkpoint. download: whether a library may fetch the
    classifier's weights. logits, features: tensors of an ONNX classifier.
    """

    unet: str | Path
    classifier: str
    classifier_weights: Path | None = None
    scheduler: Path | None = None
    unet_config: str | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] | None = None
    download: bool = False
    logits: str | None = None
    features: str | None = None


def load_models(sources: Sources) -> tuple["UNet", "Classifier"]:
    """Load both in torch, the classifier for the UNet's images. Raises ExportError, MissingExtraError."""
    from diffood.export.sources.classifiers.classifier import load_classifier
    from diffood.export.sources.unets.load import load_unet

    unet = load_unet(sources.unet, sources.unet_config, sources.scheduler)
    classifier = load_classifier(
        sources.classifier,
        sources.classifier_weights,
        unet.image.height,
        unet.image.width,
        sources.preprocessing,
        download=sources.download,
        logits=sources.logits,
        features=sources.features,
    )
    return unet, classifier
