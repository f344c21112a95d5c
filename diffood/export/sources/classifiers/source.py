"""What a user says of a classifier. Read without torch."""

from dataclasses import dataclass, field
from pathlib import Path

from diffood.export.sources.classifiers.preprocessing import Preprocessing, require_unit_scale


@dataclass(frozen=True)
class ClassifierSource:
    """Where a classifier is, and what it does not say itself.

    Attributes:
        spec: KIND:NAME or FILE.py:FACTORY, one of `registry.FORMS`.
        weights: Local file of its weights, for the kinds that take one.
        preprocessing: The user's own values, which win over the source's.
        download: Whether a library may fetch the weights.
        logits: Tensor of an ONNX graph with the logits, where they cannot be found.
        features: Tensor of an ONNX graph with the features, where others than those found are wanted.

    """

    spec: str
    weights: Path | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    download: bool = False
    logits: str | None = None
    features: str | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for a mean or deviation of pixels in 0..255."""
        require_unit_scale(self.preprocessing)

    @property
    def kind(self) -> str:
        """What is before the first colon."""
        return self.spec.partition(":")[0]

    @property
    def name(self) -> str:
        """What is after the first colon."""
        return self.spec.partition(":")[2]
