"""Converts decoded images of any mode to 8-bit grey or RGB: alpha, 16 bits, palettes."""

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from diffood.errors import RejectedImage

OVER_BLACK = "composited over black"
REDUCED = "reduced from 16 bits to 8"

# TIFF 6.0 tags, by their numbers there.
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
WHITE_IS_ZERO = 0


def to_grey_or_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert a loaded image of any mode to mode L or RGB, and note what was changed."""
    if image.mode == "F":
        raise RejectedImage(
            "The image has floating-point values, which have no fixed black and white; save it as 8- or 16-bit PNG."
        )
    if image.mode.startswith("I"):
        return _from_16_bit(image, notes)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return _over_black(image.convert("LA" if grey else "RGBA"), notes)
    if image.mode in ("CMYK", "YCbCr", "LAB"):
        notes.append(f"converted from {image.mode}")
    wanted = "L" if grey else "RGB"
    return image if image.mode == wanted else image.convert(wanted)  # which copies where there is nothing to convert


def _over_black(image: Image.Image, notes: list[str]) -> Image.Image:
    """Composite an image of mode LA or RGBA over black: its colour times its alpha.

    Dropping the alpha would show colours no viewer shows, hidden under transparent pixels. Over black, a pixel fades
    to the one value that is the same in every mode and is the empty background of greyscale data sets like MNIST.
    """
    alpha = image.getchannel("A")
    colour = image.convert("L" if image.mode == "LA" else "RGB")
    if alpha.getextrema() == (255, 255):
        return colour
    notes.append(OVER_BLACK)
    return Image.composite(colour, Image.new(colour.mode, colour.size), alpha)


def reduction_table(white: int) -> npt.NDArray[np.uint8]:
    """round(255 * value / white), at most 255, for every value of 16 bits, uint8 [65536]."""
    levels = np.minimum(np.arange(65536), white)
    return ((2 * 255 * levels + white) // (2 * white)).astype(np.uint8)


def _from_16_bit(image: Image.Image, notes: list[str]) -> Image.Image:
    """Scale a grey image of 16 (TIFF also 12) bits to mode L: round(255 * value / white); for 16 bits, value / 257.

    Pillow's own conversion clips at 255. Mode I is 16 bits in PNG and PPM, where Pillow widens it; in TIFF it is
    signed or 32-bit, whose white is not known. A table, since it needs no second image of wider numbers.
    """
    white, white_is_zero = 65535, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if image.mode == "I":
            raise RejectedImage(
                "The image has signed or 32-bit integers, whose white is not known; save it as 8- or 16-bit PNG."
            )
        white = 2 ** int(image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0]) - 1
        white_is_zero = image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO  # Pillow ignores it for 16 bits
    table = reduction_table(white)
    if white_is_zero:
        table = 255 - table
    transparent = image.info.get("transparency")  # one grey of a PNG, which composited over black becomes black
    if isinstance(transparent, int):
        table[transparent] = 0
        notes.append(OVER_BLACK)
    values = np.asarray(image)
    if values.min() < 0 or values.max() > white:
        raise RejectedImage(
            f"The image has the value {values.max() if values.max() > white else values.min()} outside 0 to {white}; "
            f"save it as 8- or 16-bit PNG."
        )
    return Image.fromarray(table[values])
