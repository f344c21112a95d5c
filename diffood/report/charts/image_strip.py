"""A strip of images: what the classifier says, what denoising makes of each, and the verdict."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from diffood.calibration.metrics.formatting import percent
from diffood.report.charts.style import IND_TEXT, OOD_TEXT, QUIET_TEXT, Theme, save_chart
from diffood.runtime.images.pixels import Pixels

COLUMN = 1.12  # inches; shown at a hundred pixels per inch, seven columns are as wide as a page on GitHub
LABEL = 21  # letters that fit under a column
STRIP_DPI = 200


@dataclass(frozen=True)
class StripImage:
    """One column of a strip.

    Attributes:
        title: Printed above the image.
        original: Pixels uint8 [C, H, W].
        denoised: Pixels uint8 [C, H, W].
        class_name: Predicted class of the original.
        confidence: Softmax probability of that class.
        p_value: Conformal p-value of its score.
        is_ood: Whether it was flagged.
    """

    title: str
    original: Pixels
    denoised: Pixels
    class_name: str
    confidence: float
    p_value: float
    is_ood: bool


def draw_strip(images: Sequence[StripImage], path: Path) -> None:
    """Write one column for each image: original, denoised, and the verdict with its p-value, as PNG."""

    def draw(figure: Figure, _: Theme) -> None:
        layout = figure.get_layout_engine()
        assert isinstance(layout, ConstrainedLayoutEngine)
        layout.set(w_pad=0.03, h_pad=0.03, hspace=0)
        panels = figure.subplots(2, len(images), squeeze=False)
        for (above, below), image in zip(panels.T, images, strict=True):
            _show(above, image.original)
            _show(below, image.denoised)
            above.set_title(image.title, loc="center", fontsize=9.5)
            label = textwrap.fill(f"{image.class_name}, {percent(image.confidence, 0)}", LABEL)
            above.set_xlabel(label, fontsize=8, color=QUIET_TEXT)
            colour = OOD_TEXT if image.is_ood else IND_TEXT
            verdict = "OOD" if image.is_ood else "in-distribution"
            text = f"{verdict}\np = {image.p_value:.2g}"
            below.set_xlabel(text, fontsize=9, color=colour, fontweight="bold")
            below.spines[:].set(color=colour, linewidth=2)
        panels[0, 0].set_ylabel("image and\npredicted class", fontsize=8.5)
        panels[1, 0].set_ylabel("denoised\nand verdict", fontsize=8.5)

    save_chart(draw, (COLUMN * len(images) + 0.3, 3.1), path, STRIP_DPI)


def _show(panel: Axes, pixels: Pixels) -> None:
    panel.imshow(pixels.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(True)
