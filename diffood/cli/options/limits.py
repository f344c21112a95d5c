"""Options that bound what one image may cost."""

from dataclasses import dataclass
from typing import Annotated

import typer

from diffood.runtime.images.decode import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS, ImageLimits

_PANEL = "Limits"


@dataclass(frozen=True)
class LimitOptions:
    """The limits of one image, as typed."""

    max_pixels: Annotated[int, typer.Option(help="Refuse images with more pixels.", min=1, rich_help_panel=_PANEL)] = (
        DEFAULT_MAX_PIXELS
    )
    max_bytes: Annotated[int, typer.Option(help="Refuse files with more bytes.", min=1, rich_help_panel=_PANEL)] = (
        DEFAULT_MAX_BYTES
    )

    def read(self) -> ImageLimits:
        """The same for `diffood.runtime.images`."""
        return ImageLimits(self.max_bytes, self.max_pixels)
