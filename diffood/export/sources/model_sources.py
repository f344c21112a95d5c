"""Where the models are, and what they do not say themselves. Read without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffood.export.sources.classifiers.source import ClassifierSource

if TYPE_CHECKING:
    from diffood.export.sources.classifiers.classifier import Classifier
    from diffood.export.sources.unets.unet import UNet


@dataclass(frozen=True)
class ModelSources:
    """The models of a bundle.

    Attributes:
        unet: Folder that diffusers saved, or a checkpoint; None for a bundle of the classifier alone.
        classifier: Where the classifier is.
        unet_config: Name of a preset or a .json file of hyper-parameters, for a checkpoint.
        scheduler: A scheduler config or its folder, where the UNet's own is missing or another is wanted.
        class_names: The user's own, None for those of the classifier.

    """

    unet: Path | None
    classifier: ClassifierSource
    unet_config: str | None = None
    scheduler: Path | None = None
    class_names: tuple[str, ...] | None = None


def load_models(sources: ModelSources) -> tuple["UNet", "Classifier"]:
    """Load both in torch, the classifier for the UNet's images; without a UNet, what stands for it.

    Raises ExportError, MissingExtraError.
    """
    from diffood.export.sources.classifiers.classifier import load_classifier, load_classifier_alone
    from diffood.export.sources.unets.load import load_unet
    from diffood.export.sources.unets.unet import no_unet

    if sources.unet is None:
        alone, image = load_classifier_alone(sources.classifier)
        return no_unet(image), alone
    unet = load_unet(sources.unet, sources.unet_config, sources.scheduler)
    return unet, load_classifier(sources.classifier, unet.image.height, unet.image.width)
