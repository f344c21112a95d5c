"""The embedded pairs of a UNet and a classifier, each with the image sets that it is tried on. Read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffood.runtime.images.decode import ImageShape
from diffood.zoo import BUNDLE, CLASSIFIER, DATA, FACTORY
from diffood.zoo.images import SETS


@dataclass(frozen=True)
class EmbeddedPair:
    """A UNet and a classifier of one domain.

    Attributes:
        name: As `diffood demo --model` takes it.
        things: What the images show, in the plural.
        shape: Of the images that the models take.
        weights: Folder of unet/, scheduler/, classifier.safetensors and class_names.txt.
        factory: The function of classifier.py that builds the classifier.
        bundle: A bundle of these weights; None where only they are shipped.
        validation: The image set to calibrate on.
        test: The in-distribution image set to evaluate on.
        unseen: Image sets of what the models do not know, by the name that the demo shows.
        source: Where the in-distribution images come from.
        licence: SPDX identifier of the licence of these images.
    """

    name: str
    things: str
    shape: ImageShape
    weights: Path
    factory: str
    bundle: Path | None
    validation: str
    test: str
    unseen: Mapping[str, str]
    source: str
    licence: str

    @property
    def unet(self) -> Path:
        """Folder of the UNet."""
        return self.weights / "unet"

    @property
    def unet_weights(self) -> Path:
        """The UNet's file of weights."""
        return self.unet / "diffusion_pytorch_model.safetensors"

    @property
    def classifier(self) -> str:
        """As `--classifier` takes it."""
        return f"{CLASSIFIER}:{self.factory}"

    @property
    def classifier_weights(self) -> Path:
        """The classifier's file of weights."""
        return self.weights / "classifier.safetensors"

    @property
    def class_names(self) -> Path:
        """File of the class names, one a line."""
        return self.weights / "class_names.txt"


PAIRS: Mapping[str, EmbeddedPair] = {
    pair.name: pair
    for pair in (
        EmbeddedPair(
            name="clothes",
            things="clothes",
            shape=ImageShape(channels=1, height=28, width=28),
            weights=DATA / "weights",
            factory=FACTORY,
            bundle=BUNDLE,
            validation="fashion-validation",
            test="fashion-test",
            unseen={name: name for name, entry in SETS.items() if entry.role == "ood"},
            source="Fashion-MNIST, Zalando SE",
            licence="MIT",
        ),
        EmbeddedPair(
            name="materials",
            things="surfaces",
            shape=ImageShape(channels=3, height=32, width=32),
            weights=DATA / "materials",
            factory="materials_resnet",
            bundle=None,
            validation="surfaces-validation",
            test="surfaces-test",
            unseen={
                "new-pictures": "surfaces-new",
                "other-materials": "surfaces-other",
                "photos": "photos-colour",
                "clothes": "fashion-test",
                "digits": "digits",
            },
            source="0 A.D., Wildfire Games and contributors",
            licence="CC-BY-SA-3.0",
        ),
    )
}
