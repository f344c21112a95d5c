"""The image sets of a split: images of the classes kept, of classes that the models never saw, and other pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffood.zoo.images import SETS, load_set
from research.compare import NO_SURFACES, OTHER_SETS, material_sets
from research.datasets import Images, TrainingData, load_training_data

TRAINED, HELD_OUT, LEFT_OUT, FAR = 5000, 1000, 500, 250  # the most images of a set of each kind
_SEED = 2605_11014


@dataclass(frozen=True)
class LabelledImages:
    """Images uint8 [N, H, W] or [N, H, W, 3], and their labels int64 [N] as the classifier counts them.

    A label is -1 for out-of-distribution.
    """

    images: Images
    labels: Images

    @property
    def side(self) -> int:
        """Pixels a side."""
        side: int = self.images.shape[1]
        return side


def split_sets(data: Path, without: Sequence[int]) -> dict[str, LabelledImages]:
    """Sets "train", "validation" and "test" of the classes kept, "near-C" of each class left out, and "far-…".

    Held-out images of classes kept are halved where there are fewer than twice HELD_OUT. Of a class left out no image
    was trained on, so that all of them may be taken. Digits upside down are the validation images. Of surfaces
    (build_materials) the near sets are those that the file leaves out, and new pictures of known materials.
    """
    whole = load_training_data(data)
    kept, generator = whole.without(without), np.random.default_rng(_SEED)
    chosen = generator.permutation(len(kept.images))[:TRAINED]
    order = generator.permutation(len(kept.held_out))
    size = min(HELD_OUT, len(order) // 2)
    validation, test = order[:size], order[size : 2 * size]
    found = {
        "train": LabelledImages(kept.images[chosen], kept.labels[chosen].astype(np.int64)),
        "validation": LabelledImages(kept.held_out[validation], kept.held_out_labels[validation].astype(np.int64)),
        "test": LabelledImages(kept.held_out[test], kept.held_out_labels[test].astype(np.int64)),
    }
    near = {f"near-{label}": _of_class(whole, label, generator) for label in without}
    if data.suffix == ".npz":
        others = material_sets(data)
        near |= {f"near-{name}": others[name][:LEFT_OUT] for name in others if name not in ("fit", "ind", *NO_SURFACES)}
        far = {name: others[name] for name in NO_SURFACES}
    elif data.is_dir():
        far = {name: load_set(name).images for name, entry in SETS.items() if entry.role == "ood"}
    else:
        far = {"clothes": load_set("fashion-test").images} | {name: load_set(name).images for name in OTHER_SETS}
        far["upside-down"] = found["validation"].images[:, ::-1]
    far = {f"far-{name}": images[:FAR] for name, images in far.items()}
    return found | {name: LabelledImages(images, np.full(len(images), -1)) for name, images in (near | far).items()}


def _of_class(data: TrainingData, label: int, generator: np.random.Generator) -> Images:
    """Held-out images of a class first, then others."""
    held_out, others = data.held_out[data.held_out_labels == label], data.images[data.labels == label]
    images = np.concatenate([generator.permutation(held_out), generator.permutation(others)])
    return images[:LEFT_OUT]
