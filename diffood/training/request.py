"""What a training is asked for, and the sizes of UNets there are. Read without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diffood.errors import UsageError
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.reading import DEFAULT_RULES, InputRules

LabelSource = Literal["auto", "folders", "classifier", "none"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
SizeName = Literal["tiny", "small", "base"]
TrainingPrecision = Literal["auto", "fp32", "bf16"]

EVALUATE_EVERY = 250  # steps between two looks at the held-out images
PICTURE_EVERY = 1000
MAX_SEED = 2**31  # a step's generator is seeded with seed * 2^32 + step


@dataclass(frozen=True)
class UNetSize:
    """A size of UNet, and what suits it. Deeper levels have the last width.

    Attributes:
        widths: Channels by level, of the image's own size first.
        layers: Residual blocks per level.
        groups: Of the group normalisation.
        head: Channels of an attention head.
        attended: Levels of at most so many pixels a side have attention.
        steps: Of a training.
        batch: Images per step.
        rate: Learning rate of AdamW.
    """

    widths: tuple[int, ...]
    layers: int
    groups: int
    head: int
    attended: int
    steps: int
    batch: int
    rate: float


UNET_SIZES: dict[SizeName, UNetSize] = {
    "tiny": UNetSize((24, 48, 96), 1, 8, 24, 8, 20_000, 32, 1e-3),  # the zoo's, 1.5 million parameters
    "small": UNetSize((64, 128, 192), 2, 32, 64, 16, 50_000, 64, 4e-4),  # 11 million
    "base": UNetSize((128, 256), 2, 32, 64, 16, 200_000, 128, 2e-4),  # Ho et al. 2020 for CIFAR-10, 36 million
}


@dataclass(frozen=True)
class TrainingRequest:
    """A UNet to train.

    Attributes:
        images: In-distribution images: files, folders and whatever else holds images.
        output: Folder of the UNet.
        size: Name of one of UNET_SIZES.
        classifier: Whose classes condition the UNet; None to take them from folders.
        class_names: The classifier's, in its order, where it does not name them itself.
        labels: Where the label of an image comes from.
        shape: (H, W) that images are resized to; None to derive it from the images.
        steps: Most steps; None for the size's own.
        minutes: Most minutes of training; None for no limit.
        batch: Images per step; None for the size's own.
        seed: Of weights and draws.
        picture_every: Steps between two pictures of samples; 0 for none.
        device: What to train on.
        precision: Of products and convolutions; weights are always float32.
        threads: Of torch; 0 for all cores.
        overwrite: Whether to replace an earlier training in the folder.
        rules: Columns of tables, and which URLs are opened.
        limits: Of one image.
        evaluate_every: Steps between two looks at the held-out images.
    """

    images: tuple[str, ...]
    output: Path
    size: SizeName = "tiny"
    classifier: ClassifierSource | None = None
    class_names: tuple[str, ...] | None = None
    labels: LabelSource = "auto"
    shape: tuple[int, int] | None = None
    steps: int | None = None
    minutes: float | None = None
    batch: int | None = None
    seed: int = 0
    picture_every: int = PICTURE_EVERY
    device: DeviceChoice = "auto"
    precision: TrainingPrecision = "auto"
    threads: int = 0
    overwrite: bool = False
    rules: InputRules = field(default=DEFAULT_RULES)
    limits: ImageLimits = field(default=DEFAULT_LIMITS)
    evaluate_every: int = EVALUATE_EVERY

    def __post_init__(self) -> None:
        """Raise UsageError for values that exclude each other or are impossible."""
        if self.labels == "classifier" and self.classifier is None:
            raise UsageError("--labels classifier takes the predictions of a classifier: add --classifier SPEC.")
        if self.class_names is not None and self.classifier is None:
            raise UsageError("--class-names gives the classifier's order of classes: add --classifier SPEC.")
        for name, value in (("steps", self.steps), ("minutes", self.minutes), ("batch", self.batch)):
            if value is not None and not value > 0:
                raise UsageError(f"--{name} is {value:g}; give a number above 0.")
        if not 0 <= self.seed < MAX_SEED:
            raise UsageError(f"--seed {self.seed} is not possible: choose 0 to {MAX_SEED - 1}.")

    @property
    def network(self) -> UNetSize:
        """The size that `size` names."""
        return UNET_SIZES[self.size]

    @property
    def most_steps(self) -> int:
        """Steps after which the training ends at the latest."""
        return self.steps or self.network.steps

    @property
    def images_per_step(self) -> int:
        """The batch that was asked for, or the size's own."""
        return self.batch or self.network.batch
