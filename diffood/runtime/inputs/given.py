"""Images as Python code gives them, one or many of any kind, as items: paths, bytes, pictures, arrays, tensors."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image

from diffood.errors import RejectedImage, UsageError
from diffood.runtime.images.decode import DecodedImage, ImageLimits, ImageShape, error_text
from diffood.runtime.images.in_memory import AnyPixels, load_array, load_picture, split_images
from diffood.runtime.inputs.files import is_folder
from diffood.runtime.inputs.items import InlineItem, Item, LocalFile, Pause, utf8_name
from diffood.runtime.inputs.open import STANDARD_INPUT, container_of, open_inputs
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.urls import is_url

Images = Union[str, "os.PathLike[str]", bytes, Image.Image, AnyPixels, Iterable[Any], Any]
"""One path (of a file, a folder, or what else the command line takes as input), the bytes of an image file or a file
open for reading them, a Pillow image, an array or tensor of one image or of a stack, or an iterable of these."""

KINDS = "a path, bytes of an image file, a Pillow image, an array or tensor of pixels, or an iterable of these"


@dataclass(frozen=True, eq=False)
class GivenPicture(Item):
    """A Pillow image."""

    picture: Image.Image

    @property
    def place(self) -> str:
        """Its number."""
        return self.id

    def read(self, limits: ImageLimits) -> bytes:
        """Raise RejectedImage: it has no file."""
        raise RejectedImage("This is a picture in memory, not a file; save it first.")

    def load(self, shape: ImageShape, limits: ImageLimits) -> DecodedImage:
        """See Item.load."""
        return load_picture(self.picture, shape, limits)


@dataclass(frozen=True, eq=False)
class GivenArray(Item):
    """Pixels bool, uint8 or uint16 [H, W, C]."""

    pixels: AnyPixels

    @property
    def place(self) -> str:
        """Its number."""
        return self.id

    def read(self, limits: ImageLimits) -> bytes:
        """Raise RejectedImage: it has no file."""
        raise RejectedImage("This is an array in memory, not a file; save it first.")

    def load(self, shape: ImageShape, limits: ImageLimits) -> DecodedImage:
        """See Item.load."""
        return load_array(self.pixels, shape)

    @property
    def held(self) -> int:
        """All its bytes."""
        return int(self.pixels.nbytes)


def list_given(images: Images, shape: ImageShape) -> Iterator[Item]:
    """The items of all images that were given, lazily and in their order; none is left out.

    The id of a file is its path as `serve-batch` writes it, that of anything else its number among all, from 0.

    Raises:
        UsageError: Something that is no image, now or when its turn comes; or a single path that names nothing.
    """
    whole = _one(images, "0", "The image", shape, alone=True)
    if whole is not None:
        return whole
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise UsageError(f"The image is {_name_type(images)}; give {KINDS}.")
    return _each(images, shape)


def _each(images: Iterable[Any], shape: ImageShape) -> Iterator[Item]:
    """The items of an iterable. An array in it is one image, or a stack if it has four axes."""
    count = 0
    for position, given in enumerate(images):
        items = _one(given, str(count), f"Image {position}", shape, alone=False)
        if items is None:
            raise UsageError(f"Image {position} is {_name_type(given)}; give {KINDS}.")
        for item in items:
            count += 1
            yield item


def _one(given: Any, number: str, what: str, shape: ImageShape, *, alone: bool) -> Iterator[Item] | None:
    """The items of something that is no iterable of images; None if it may be one. `alone`: not part of one."""
    if isinstance(given, (str, os.PathLike)):
        return _files(os.fsdecode(given), alone=alone)
    if isinstance(given, Image.Image):
        return iter([GivenPicture(number, given)])
    readable = callable(getattr(given, "read", None))
    if readable or isinstance(given, (bytes, bytearray, memoryview)):
        return iter([InlineItem(number, number, _read(given, what) if readable else bytes(given))])
    if any(hasattr(given, name) for name in ("__array__", "detach")):
        return _arrays(_as_array(given, what), number, what, shape, alone=alone)
    return None


def _arrays(array: AnyPixels, number: str, what: str, shape: ImageShape, *, alone: bool) -> Iterator[Item] | None:
    """The images in an array; None if it may contain paths or arrays."""
    if array.dtype.kind in "OUST" and array.ndim == 1 and alone:
        return None
    found = split_images(array, shape, what, stack=alone)
    return (GivenArray(str(int(number) + index), pixels) for index, pixels in enumerate(found))


def _files(name: str, *, alone: bool) -> Iterator[Item]:
    """The file of this name, or all files that an input of `serve-batch` of this name has.

    Among others a name that is neither a folder, a container nor a URL is one image, which may be missing.
    """
    several = is_folder(name) or container_of(name) is not None or is_url(name)
    if name == STANDARD_INPUT or not (alone or several):
        return iter([LocalFile(utf8_name(Path(name).as_posix()), Path(name))])
    return (item for item in open_inputs([name], ReadOptions()) if not isinstance(item, Pause))


def _read(file: Any, what: str) -> bytes:
    """All bytes of an open file. Raises UsageError if it is not open for reading bytes."""
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed, or text
        raise UsageError(f"{what} is a file that cannot be read ({error_text(error)}); give its path.") from None
    if not isinstance(data, bytes):
        raise UsageError(f"{what} is a file that gives {type(data).__name__}, not bytes; open it with mode 'rb'.")
    return data


def _as_array(given: Any, what: str) -> AnyPixels:
    """A NumPy array of any array or tensor, which may be on a GPU or part of a computation of gradients."""
    try:
        if hasattr(given, "detach"):
            given = given.detach().cpu().numpy()
        return np.asarray(given)
    except Exception as error:  # each library has its own
        kind, size = getattr(given, "dtype", "unknown type"), list(getattr(given, "shape", ()))
        raise UsageError(
            f"{what} ({_name_type(given)}, {kind} {size}) cannot become an array ({error_text(error)}); give uint8 "
            "pixels, 0 to 255, as a NumPy array."
        ) from None


def _name_type(given: Any) -> str:
    return f"an object of type {type(given).__name__}"
