"""The shape an image file has of its own, before it is made what a model takes."""

import io
from collections.abc import Callable

from PIL import Image

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import FORMATS, ORIENTATION, UPRIGHT, ImageLimits, ImageShape, decode

GREY = frozenset(("1", "L", "LA", "La"))
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_TINY = ImageShape(3, 1, 1)


def probe_shape(read: Callable[[], bytes], limits: ImageLimits) -> ImageShape | None:
    """Channels (1 for a grey file), height and width, upright; None for a file that `decode` refuses."""
    try:
        data = read()
        decode(data, _TINY, limits)
    except RejectedImage:
        return None
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # sound, as it was decoded
        width, height = image.size
        if image.getexif().get(ORIENTATION, 1) in set(UPRIGHT) & set(_TURNED):
            width, height = height, width
        grey = image.mode in GREY or image.mode.startswith("I")
        return ImageShape(1 if grey else 3, height, width)
