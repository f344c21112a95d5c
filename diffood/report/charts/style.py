"""The style that all charts share: colours, sizes, and how a figure becomes a file or a picture in a page."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text

from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.printable import escape_for_terminal

# Okabe and Ito's palette, told apart by colour-blind readers; the first is the in-distribution set's.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D5D5D", "#B8A800")
IND_TEXT, OOD_TEXT, QUIET_TEXT = "#0063A3", "#B34A00", "#59636E"  # dark enough to be read as text on white

WIDTH = 8.0  # inches of a chart in a file
FILE_DPI = 150
PAGE_WIDTH = 5.2  # inches of a chart in a page
PAGE_DPI = 200

_METADATA = {"Software": None}  # without matplotlib's version, so that the same figure gives the same bytes


@dataclass(frozen=True)
class Theme:
    """Colours of one chart, for a light or a dark ground.

    Attributes:
        text: Labels and axes.
        ind: In-distribution data, and what is first in a chart.
        ood: Out-of-distribution data, and what is second.
        line: Thresholds and limits.
        dots: Data in the background.
    """

    text: str
    ind: str
    ood: str
    line: str
    dots: str


LIGHT = Theme(text="#1f2328", ind=PALETTE[0], ood=PALETTE[1], line="#1f2328", dots="#b0b4b9")
DARK = Theme(text="#d7dbe0", ind=PALETTE[5], ood=PALETTE[4], line="#f5f6f7", dots="#6b727b")

Draw = Callable[[Figure, Theme], None]


@dataclass(frozen=True)
class Picture:
    """A chart in a page.

    Attributes:
        light: Data URI of a PNG for a light page.
        dark: Data URI of a PNG for a dark page.
        width: Pixels.
        height: Pixels.
        alt: What it shows, in words.
    """

    light: str
    dark: str
    width: int
    height: int
    alt: str


def save_chart(draw: Draw, size: tuple[float, float], path: Path, dpi: int = FILE_DPI) -> None:
    """Write a chart as PNG, the same bytes for the same data; makes the folders above it.

    Args:
        draw: Draws into an empty figure in the colours of a theme.
        size: Width and height in inches.
        path: The file.
        dpi: Pixels per inch.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, _render(draw, size, LIGHT, dpi, "white"))


def chart_picture(draw: Draw, size: tuple[float, float], alt: str) -> Picture:
    """Draw a chart twice, for light and for dark pages, on a transparent ground.

    Args:
        draw: Draws into an empty figure in the colours of a theme. It writes no name that comes from a user: the page
            around the picture can escape, wrap and read names aloud.
        size: Width and height in inches.
        alt: What it shows, in words.
    """
    light, dark = (png_uri(_render(draw, size, theme, PAGE_DPI, "none")) for theme in (LIGHT, DARK))
    return Picture(light, dark, round(size[0] * PAGE_DPI), round(size[1] * PAGE_DPI), alt)


def png_uri(data: bytes) -> str:
    """A PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _render(draw: Draw, size: tuple[float, float], theme: Theme, dpi: int, ground: str) -> bytes:
    with mpl.rc_context(
        {
            "font.size": 10,
            "text.color": theme.text,
            "text.parse_math": False,  # a $ in a name is no formula
            "text.usetex": False,
            "axes.titlesize": 9,
            "axes.titlelocation": "left",
            "axes.labelcolor": theme.text,
            "axes.edgecolor": theme.text,
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": theme.text,
            "ytick.color": theme.text,
            "legend.fontsize": 8,
            "legend.frameon": False,
        }
    ):
        figure = Figure(figsize=size, layout="constrained", facecolor=ground)
        draw(figure, theme)
        for text in figure.findobj(Text):  # names in it are from outside
            text.set_text("\n".join(map(escape_for_terminal, text.get_text().split("\n"))))
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=dpi, format="png", metadata=_METADATA)
    return buffer.getvalue()
