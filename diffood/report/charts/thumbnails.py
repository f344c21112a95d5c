"""Small pictures of an image, of what denoising made of it, and of the difference."""

import io
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from PIL import Image

from diffood.report.charts.style import png_uri
from diffood.runtime.images.pixels import Pixels

LARGEST_SIDE = 160  # pixels
FULL_HEAT = 0.5  # difference, as a share of black to white, from which the heat map shows its brightest colour


@dataclass(frozen=True)
class Thumbnails:
    """Data URIs of three PNGs of width x height pixels; only of the original where nothing was denoised."""

    original: str
    denoised: str | None
    difference: str | None
    width: int
    height: int


def make_thumbnails(original: Pixels, denoised: Pixels | None) -> Thumbnails:
    """Make thumbnails of an image and its denoised version if there is one, both uint8 [C, H, W]."""
    picture = _shrunk(_as_picture(original))
    return Thumbnails(
        original=_image_uri(picture),
        denoised=None if denoised is None else _image_uri(_shrunk(_as_picture(denoised))),
        difference=None if denoised is None else _image_uri(_shrunk(_heat(original, denoised))),
        width=picture.width,
        height=picture.height,
    )


def _as_picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def _heat(original: Pixels, denoised: Pixels) -> Image.Image:
    """Mean absolute difference over channels, as a share of black to white, in colours from black to pale yellow."""
    difference = np.abs(denoised.astype(np.int16) - original).mean(axis=0) / 255
    colours = mpl.colormaps["inferno"](np.clip(difference / FULL_HEAT, 0, 1), bytes=True)
    return Image.fromarray(np.ascontiguousarray(colours[..., :3]))


def _shrunk(picture: Image.Image) -> Image.Image:
    """The picture, made smaller where a side is above LARGEST_SIDE; the page enlarges small ones."""
    factor = LARGEST_SIDE / max(picture.size)
    if factor >= 1:
        return picture
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _image_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return png_uri(buffer.getvalue())
