"""Prepares images for a classifier: size, filter, crop, mean and standard deviation."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffood.errors import ExportError, UsageError

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Matrix = npt.NDArray[np.float32]

PIXELS = 255  # largest value of an 8-bit pixel
MOST_PIXELS = 2**13  # of a side; more is a typing error or a hostile config


@dataclass(frozen=True)
class Preprocessing:
    """What has to be done to an image before a classifier sees it; None where nobody said.

    Attributes:
        size: (H, W) the classifier takes.
        mean: Subtracted from pixels in [0, 1]; one value, or one per channel.
        std: What is divided by then.
        resize: (H, W) the image is resized to before the centre of `size` is cut out; None: straight to `size`.
        keep_ratio: Whether the resized image keeps its ratio and covers `resize`.
        filter: Of the resizing, as Pillow names it.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: tuple[int, int] | None = None
    keep_ratio: bool = False
    filter: Filter = "bilinear"

    def with_defaults_from(self, source: "Preprocessing") -> "Preprocessing":
        """These values, and those of `source` where there are none; with a size of its own there is no crop."""
        size, crop = (self.size, None) if self.size else (source.size, source.resize)
        return Preprocessing(
            size, self.mean or source.mean, self.std or source.std, crop, source.keep_ratio, source.filter
        )

    def for_channels(self, channels: int) -> "Preprocessing":
        """The same, for one channel with the averages of the channels' mean and std."""
        if channels != 1:
            return self
        mean, std = (values and (sum(values) / len(values),) for values in (self.mean, self.std))
        return replace(self, mean=mean or None, std=std or None)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The size an image of height x width has before the centre is cut out, as torchvision's Resize makes it."""
        wanted = self.resize or self.size
        if wanted is None:
            return height, width
        if not (self.keep_ratio and self.resize):
            return wanted
        if height / wanted[0] <= width / wanted[1]:
            return wanted[0], max(wanted[1], width * wanted[0] // height)
        return max(wanted[0], height * wanted[1] // width), wanted[1]

    def matrices(self, height: int, width: int) -> tuple[Matrix, Matrix] | None:
        """Matrices R [h, H] and C [W, w] with which R @ image @ C is the image resized and cut; None: it stays.

        Two products in place of ONNX's Resize, whose antialiasing TensorRT refuses; the weights are Pillow's own.
        """
        sizes = self.resized(height, width)
        wanted = self.size or sizes
        if sizes == wanted == (height, width):
            return None
        rows, columns = (
            _cut(resize_matrix(have, made, self.filter), take)
            for have, made, take in zip((height, width), sizes, wanted, strict=True)
        )
        return rows, np.ascontiguousarray(columns.T)

    def describe(self, height: int, width: int) -> str:
        """Describe what is done to an image of height x width."""
        sizes = self.resized(height, width)
        words = [f"{height}x{width}"]
        if sizes != (height, width):
            words.append(f"resized to {sizes[0]}x{sizes[1]} by {self.filter}")
        if self.size and self.size != sizes:
            words.append(f"its centre {self.size[0]}x{self.size[1]} cut out")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values:
                words.append(f"{name} {', '.join(f'{value:.4g}' for value in values)}")
        return ", ".join(words) + ("" if self.mean or self.std else ", not normalised")


def require_unit_scale(given: Preprocessing) -> None:
    """Raise UsageError for a mean or deviation, as a user gave it, of pixels in 0..255; it says what it is in 0..1."""
    mean, std = given.mean or (0.0,), given.std or (1.0,)
    if max(*mean, *std) <= 1:
        return
    pixels = max(mean) > 1
    named = {"--mean": given.mean, "--std": given.std}
    said = " ".join(f"{option} {_listed(values)}" for option, values in named.items() if values)
    mean = tuple(value / PIXELS for value in mean) if pixels else mean
    std = tuple(value / PIXELS for value in std) if max(std) > 1 or (pixels and min(std) == 1) else std
    raise UsageError(
        f"{said} is of pixels in 0..255, and images come in 0..1: give --mean {_listed(mean)} --std {_listed(std)}. "
        f"(A classifier that takes pixels in 0..255 as they are: --mean 0 --std {_listed((1 / PIXELS,))}.)"
    )


def _listed(values: Iterable[float]) -> str:
    return ",".join(f"{value:.4g}" for value in values)


def require_usable(preprocessing: Preprocessing, origin: str) -> None:
    """Raise ExportError for impossible sizes or numbers; `origin` says where they come from."""
    for what in ("size", "resize"):
        sides = getattr(preprocessing, what)
        if sides is not None and not all(1 <= side <= MOST_PIXELS for side in sides):
            raise ExportError(f"{origin} says {what} {sides}; 1 to {MOST_PIXELS} pixels a side are supported.")
    if preprocessing.filter not in get_args(Filter):
        raise ExportError(f"{origin} resizes by {preprocessing.filter!r}; {', '.join(get_args(Filter))} are supported.")
    size, resize = preprocessing.size, preprocessing.resize
    if size and resize and any(made < cut for made, cut in zip(resize, size, strict=True)):
        raise ExportError(f"{origin} cuts {size} out of {resize}, which is smaller: give --input-size HxW.")
    for values, what in ((preprocessing.mean, "mean"), (preprocessing.std, "std")):
        if values is not None and not all(np.isfinite(value) for value in values):
            raise ExportError(f"{origin} has a {what} of {values}; give finite numbers with --{what}.")
    if preprocessing.std is not None and not all(value > 0 for value in preprocessing.std):
        raise ExportError(
            f"{origin} has a std of {preprocessing.std}, by which it divides; give numbers above 0 with --std."
        )


def resize_matrix(have: int, make: int, kind: Filter) -> Matrix:
    """The weights float32 [make, have] by which Pillow's filter makes `make` pixels of `have`."""
    kinds = {
        "nearest": Image.Resampling.NEAREST,
        "box": Image.Resampling.BOX,
        "bilinear": Image.Resampling.BILINEAR,
        "hamming": Image.Resampling.HAMMING,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
    # One column per pixel: resized, it holds that pixel's weights.
    unit = Image.fromarray(np.eye(have, dtype=np.float32))
    return np.array(unit.resize((have, make), kinds[kind]), np.float32)


def _cut(matrix: Matrix, take: int) -> Matrix:
    """The rows of the centre, as torchvision's center_crop counts them."""
    first = round((len(matrix) - take) / 2)
    return matrix[first : first + take]
