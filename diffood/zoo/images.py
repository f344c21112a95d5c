"""Reads the embedded image sets of the zoo and unpacks them to PNG files; build_images.py made the sets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffood.errors import UsageError
from diffood.zoo import DATA

FOLDER = DATA / "images"


@dataclass(frozen=True)
class SetDescription:
    """What an embedded set is: its role for its models, its number of images, and one line for people."""

    role: Literal["ind", "ood"]
    count: int
    text: str


SETS = {
    "fashion-validation": SetDescription("ind", 2000, "Fashion-MNIST test images, for calibration"),
    "fashion-test": SetDescription("ind", 1000, "Fashion-MNIST test images, for evaluation"),
    "digits": SetDescription("ood", 500, "MNIST digits, handwritten"),
    "animals": SetDescription("ood", 500, "silhouettes of ten kinds of animals"),
    "textures": SetDescription("ood", 500, "crops of photographs of brick, grass and gravel"),
    "photos": SetDescription(
        "ood", 500, "grey crops of seven photographs: people, a cat, a cup, a rocket, stars, an eye"
    ),
    "upside-down": SetDescription("ood", 500, "Fashion-MNIST test images, flipped top to bottom"),
}
"""Of clothes: grey, 28x28."""
COLOUR_SETS = {
    "surfaces-validation": SetDescription("ind", 700, "tiles of photographs of ground at held-out places"),
    "surfaces-test": SetDescription("ind", 400, "tiles of photographs of ground at held-out places"),
    "surfaces-new": SetDescription("ood", 120, "tiles of other photographs of the same eight materials"),
    "surfaces-other": SetDescription("ood", 180, "tiles of other materials: coral, farmland, ice, mud, shrubs, wood"),
    "photos-colour": SetDescription(
        "ood", 100, "colour crops of photographs: an astronaut, a cat, a cup, a rocket, an eye"
    ),
}
"""Of surfaces: RGB, 32x32."""


@dataclass(frozen=True)
class ImageSet:
    """One embedded set.

    Attributes:
        name: One of SETS or COLOUR_SETS.
        images: uint8 [N, H, W] in grey, or [N, H, W, 3].
        labels: Classes, uint8 [N], of in-distribution sets only.
    """

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8] | None


def load_set(name: str) -> ImageSet:
    """Read the embedded set of this name.

    The images were shuffled when the set was made, so its first n are a fair sample of it.
    Raises UsageError for a name that is not there.
    """
    if name not in (known := SETS | COLOUR_SETS):
        raise UsageError(f"There is no embedded image set {name!r}; choose one of {', '.join(known)}.")
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as data:
        return ImageSet(name, data["images"], data.get("labels"))


def unpack_set(name: str, folder: Path, limit: int | None = None) -> list[Path]:
    """Write the first `limit` images of a set (all, if None or more than it has) as PNG files and list them.

    The files are 0000.png, 0001.png, … in the order of load_set. The folder is made where it is missing.
    Raises UsageError for an unknown name, a limit below 1, or a folder that holds anything else: an
    image from an earlier, larger unpacking would silently become part of the set.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"Cannot unpack {limit} images of {name!r}; the limit must be at least 1.")
    images = load_set(name).images[:limit]
    paths = [folder / f"{index:04d}.png" for index in range(len(images))]
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"Cannot unpack {name!r} into {folder}, which is a file; name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(set(folder.iterdir()) - set(paths))
    if others:
        raise UsageError(
            f"Cannot unpack {name!r} into {folder}: it already holds {others[0].name}"
            f"{f' and {len(others) - 1} more' if len(others) > 1 else ''}; name an empty folder."
        )
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths
