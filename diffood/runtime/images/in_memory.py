"""Pictures and arrays that a caller has in memory, to pixels as those of a decoded file. Reads no file."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffood.errors import RejectedImage, UsageError
from diffood.runtime.images.decode import (
    DecodedImage,
    ImageLimits,
    ImageShape,
    convert_picture,
    explain_damage,
    refuse_pixel_count,
)
from diffood.runtime.images.modes import REDUCED, reduction_table

CHANNELS = (1, 2, 3, 4)  # grey, grey with alpha, RGB, RGBA
RANGE_SLACK = 1e-3  # rounding of a caller's own scaling

AnyPixels = npt.NDArray[Any]

_LOADING = threading.Lock()  # one picture that two threads load at once is damaged: Pillow shares its file between them


def load_picture(picture: Image.Image, shape: ImageShape, limits: ImageLimits) -> DecodedImage:
    """Convert one Pillow image for a model of this shape; a refusal is returned, not raised."""
    try:
        with explain_damage(), _LOADING:
            refuse_pixel_count(picture, limits)
            _refuse_ambiguous(picture)
            pixels, note = convert_picture(picture, shape)
    except RejectedImage as error:
        return DecodedImage(None, sha256="", error=str(error))
    return DecodedImage(pixels, sha256="", note=note)


def _refuse_ambiguous(picture: Image.Image) -> None:
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        raise RejectedImage(
            f"The {picture.format} picture has several frames and a verdict is about one image; give a copy() of each."
        )
    if picture.mode == "I" and picture.format is None:
        raise RejectedImage(
            'The picture has mode "I", 32-bit integers, whose white is not known; convert it to "L" or "I;16".'
        )


def load_array(values: AnyPixels, shape: ImageShape) -> DecodedImage:
    """Convert one image as `split_images` gives it for a model of this shape."""
    notes = []
    if values.dtype == np.bool_:
        values = values * np.uint8(255)
    elif values.dtype == np.uint16:
        values = reduction_table(65535)[values]
        notes.append(REDUCED)
    picture = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[-1] == 1 else values))
    pixels, note = convert_picture(picture, shape)
    return DecodedImage(pixels, sha256="", note="; ".join(filter(None, (*notes, note))))


def split_images(array: AnyPixels, shape: ImageShape, what: str, *, stack: bool) -> AnyPixels:
    """The images in an array, bool, uint8 or uint16 [N, H, W, C].

    [H, W] is a grey image. Channels (1 grey, 2 grey and alpha, 3 RGB, 4 RGBA) are the last axis if that is so long,
    otherwise the one before height and width. Four axes are a stack. Three are one image, but [N, H, W] with exactly
    the height and width of a model that takes grey images is a stack of those where a stack may be given.

    Args:
        array: The array.
        shape: Of the model.
        what: Names the array in messages.
        stack: Whether three axes may be a stack.

    Raises:
        UsageError: Another type, shape or range; says what was given and what to give.
    """
    array = _require_pixels(array, what)
    if stack and array.ndim == 3 and shape.channels == 1 and array.shape[1:] == (shape.height, shape.width):
        return array[..., None]
    if array.ndim == 2:
        images = array[None, ..., None]
    elif array.ndim in (3, 4):
        images = array[None] if array.ndim == 3 else array
        if images.shape[-1] not in CHANNELS:
            images = np.moveaxis(images, 1, -1)
    if array.ndim not in (2, 3, 4) or images.shape[-1] not in CHANNELS:
        hint = "array.tobytes() if this is an encoded file, or " if array.ndim == 1 and array.dtype == np.uint8 else ""
        raise UsageError(
            f"{_describe(array, what)} is not an image: give {hint}[H, W], [H, W, C] or [C, H, W] with 1 to 4 "
            "channels, or a stack [N, H, W, C] or [N, C, H, W]."
        )
    if 0 in images.shape[1:]:
        raise UsageError(f"{_describe(array, what)} has no pixels; give images of at least 1x1.")
    return images


def _require_pixels(array: AnyPixels, what: str) -> AnyPixels:
    """The array as bool, uint8 or uint16. Raises UsageError for another type."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b" or (kind == "u" and size == 1):
        return array
    if kind == "u" and size == 2 and (array.size == 0 or array.max() > 255):
        return array.astype(np.uint16, copy=False)  # in this machine's order of bytes
    raise UsageError(f"{_describe(array, what)} cannot be used: pixels are uint8, 0 to 255; {_remedy(array)}.")


def _remedy(array: AnyPixels) -> str:
    """How to make uint8 pixels of the values found."""
    if array.dtype.kind not in "iuf" or not array.size:
        return "give an array of that type"
    low, high, whole = float(array.min()), float(array.max()), array.dtype.kind in "iu"
    if not (np.isfinite(low) and np.isfinite(high)):
        return "replace the values that are not finite"
    near_one = high <= 1 + RANGE_SLACK
    remedies = [
        (whole and low >= 0 and high <= 255, "array.astype(np.uint8) keeps these values"),
        (whole, "scale the values to that range"),
        (low >= 0 and near_one, "if 1 is white, give np.round(255 * array).clip(0, 255).astype(np.uint8)"),
        (
            low >= -1 - RANGE_SLACK and near_one,
            "if -1 is black and 1 is white, give np.round(127.5 * (array + 1)).clip(0, 255).astype(np.uint8)",
        ),
        (low >= 0 and high <= 255, "if 255 is white, give np.round(array).astype(np.uint8)"),
        (True, "undo the normalisation and give the pixels themselves"),
    ]
    return next(remedy for fits, remedy in remedies if fits)


def _describe(array: AnyPixels, what: str) -> str:
    """What was given, with its type, shape and range."""
    numbers = array.size and array.dtype.kind in "biuf"
    values = f", values {float(array.min()):g} to {float(array.max()):g}" if numbers else ""
    return f"{what} ({array.dtype} {list(array.shape)}{values})"
