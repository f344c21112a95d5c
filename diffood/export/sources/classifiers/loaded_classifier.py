"""What a source of classifiers gives."""

from dataclasses import dataclass, field

from torch import nn

from diffood.export.sources.classifiers.preprocessing import Preprocessing


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier as its source gives it, not tried yet.

    Attributes:
        model: Maps x [B, C, H, W], preprocessed, to logits or (logits, features).
        origin: What it was loaded from, for the user.
        sha256: Hash of its weights.
        preprocessing: What the source says of it.
        said_by: Who says so, for the user.
        class_names: The source's own, None where it has none.
        features_from: Where the features come from, if the source gives them.
        notes: What else the user should know, one line each.
        parameters: How many, where the module does not hold them.

    """

    model: nn.Module
    origin: str
    sha256: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    said_by: str = ""
    class_names: tuple[str, ...] | None = None
    features_from: str = "its second output"
    notes: tuple[str, ...] = ()
    parameters: int | None = None
