"""The pictures of a report as PNG data URIs: histograms, curves, a tuning's front, images and what denoising changed.

No picture holds a name: names come from users, and the page around it can escape, wrap and read them aloud. Every
figure is drawn twice, for light and for dark pages, on a transparent ground.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from diffood.calibration.checked import FloatArray
from diffood.calibration.metrics.rejection import RejectionCurve
from diffood.report.front import plot_front
from diffood.report.score_axis import score_axis, score_ticks
from diffood.runtime.bundle.tuning import Measured
from diffood.runtime.sessions import Array

BINS = 60
DPI = 200
LARGEST_SIDE = 160  # pixels of a thumbnail
FULL_HEAT = 0.5  # difference, as a share of black to white, from which the heat map shows its brightest colour
RATES_SHOWN = (0, 0.01, 0.05, 0.2, 0.5, 1)  # false alarms at the ticks of a ROC curve


@dataclass(frozen=True)
class Theme:
    """Colours of a figure. ind and ood are of Okabe and Ito's palette, told apart by colour-blind readers."""

    text: str
    ind: str
    ood: str
    line: str
    dots: str


LIGHT = Theme(text="#1f2328", ind="#0072B2", ood="#D55E00", line="#1f2328", dots="#b0b4b9")
DARK = Theme(text="#d7dbe0", ind="#56B4E9", ood="#E69F00", line="#f5f6f7", dots="#6b727b")


@dataclass(frozen=True)
class Picture:
    """One figure: data URIs for a light and for a dark page, its size in pixels, and what it shows in words."""

    light: str
    dark: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Thumbnails:
    """An image, its denoised self, and where they differ: data URIs of PNGs of width x height pixels."""

    original: str
    denoised: str
    difference: str
    width: int
    height: int


def draw_histogram(
    ind: FloatArray, ood: FloatArray | None, threshold: float, span: tuple[float, float], alt: str
) -> Picture:
    """Draw the in-distribution scores, alone or as an outline over those of another set, with the threshold.

    Each set is drawn to its own height; what lies outside the span is in the bar at its end.
    """
    place = score_axis(threshold, span)
    ends = (float(place(span[0])), float(place(span[1])))
    edges = np.linspace(*ends, BINS + 1)

    def heights(scores: FloatArray) -> FloatArray:
        counts = np.histogram(np.clip(place(scores), *ends), edges)[0]
        return np.asarray(counts / counts.max())

    def draw(panel: Axes, theme: Theme) -> None:
        if ood is None:
            panel.stairs(heights(ind), edges, fill=True, color=theme.ind, alpha=0.85)
        else:
            panel.stairs(heights(ood), edges, fill=True, color=theme.ood, alpha=0.85)
            panel.stairs(heights(ind), edges, color=theme.ind, lw=1.3)
        panel.axvspan(float(place(threshold)), ends[1], color=theme.line, alpha=0.08, lw=0)
        panel.axvline(float(place(threshold)), color=theme.line, lw=1.2, ls="--")
        panel.set(xlim=ends, ylim=(0, 1.05), yticks=[])
        ticks = score_ticks(place, span)
        panel.set_xticks([float(place(tick)) for tick in ticks], [f"{tick:g}" for tick in ticks])
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.set_xlabel("score")

    return _draw_both((5.2, 1.5), draw, alt)


def draw_roc(ind: FloatArray, ood: FloatArray, threshold: float, alt: str) -> Picture:
    """Draw detection against false alarms for every threshold, and the point of the calibrated one.

    The axis of false alarms is a root: thresholds are chosen at its low end.
    """
    false_alarms, detected = roc_points(ind, ood)

    def draw(panel: Axes, theme: Theme) -> None:
        guessing = np.linspace(0, 1, 100)
        panel.plot(np.sqrt(guessing), guessing, color=theme.line, lw=0.8, ls=":", alpha=0.6)
        panel.plot(np.sqrt(false_alarms), detected, color=theme.ood, lw=1.8, clip_on=False)
        here = (float(np.sqrt(np.mean(ind > threshold))), float(np.mean(ood > threshold)))
        panel.plot(*here, "o", color=theme.line, ms=6, clip_on=False, zorder=3)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="false alarms, %", ylabel="detected, %")
        panel.set_xticks([rate**0.5 for rate in RATES_SHOWN], [f"{100 * rate:g}" for rate in RATES_SHOWN])
        panel.set_yticks([0, 0.5, 1], ["0", "50", "100"])
        panel.spines[["top", "right"]].set_visible(False)

    return _draw_both((2.9, 2.7), draw, alt)


def draw_rejection(curve: RejectionCurve, alt: str) -> Picture:
    """Draw the accuracy on the images kept, the least suspicious first, against the share kept."""

    def draw(panel: Axes, theme: Theme) -> None:
        panel.plot(curve.kept, curve.accuracy, color=theme.ind, lw=1.8, drawstyle="steps-post")
        panel.axhline(float(curve.accuracy[0]), color=theme.line, lw=0.8, ls=":", alpha=0.6)
        panel.set(xlim=(1, 0), ylim=(max(0, float(curve.accuracy.min()) - 0.02), 1.002))
        panel.set(xlabel="images kept, %", ylabel="classified right, %")
        panel.xaxis.set_major_formatter(in_percent)
        panel.yaxis.set_major_formatter(in_percent)
        panel.spines[["top", "right"]].set_visible(False)

    return _draw_both((5.2, 2.7), draw, alt)


def in_percent(share: float, _: float) -> str:
    """A tick's label: a share in percent, without the sign."""
    return f"{100 * share:g}"


def draw_front(found: Measured, alt: str) -> Picture:
    """Draw every plan of a tuning, cost against mean AUROC; the front with intervals, and the plan taken."""

    def draw(panel: Axes, theme: Theme) -> None:
        plot_front(panel, found, dots=theme.dots, front=theme.ind, star=theme.ood, line=theme.line)
        panel.set_xlabel(f"{found.unit} an image")

    return _draw_both((5.2, 2.7), draw, alt)


def roc_points(ind: FloatArray, ood: FloatArray) -> tuple[FloatArray, FloatArray]:
    """False alarms [P] and detection [P] when every image that scores at least v is flagged, for v from high to low."""
    values = np.unique(np.concatenate([ind, ood]))[::-1]
    rates = [1 - np.searchsorted(np.sort(scores), values, "left") / scores.size for scores in (ind, ood)]
    return np.concatenate([[0.0], rates[0]]), np.concatenate([[0.0], rates[1]])


def make_thumbnails(original: Array, denoised: Array) -> Thumbnails:
    """Pictures of an image and its denoised self, float32 [C, H, W] in [-1, 1], and of their difference."""
    picture = _shrunk(_as_bytes(original))
    return Thumbnails(
        original=_image_uri(picture),
        denoised=_image_uri(_shrunk(_as_bytes(denoised))),
        difference=_image_uri(_shrunk(_heat(original, denoised))),
        width=picture.width,
        height=picture.height,
    )


def _as_bytes(x: Array) -> Image.Image:
    pixels = np.rint((np.clip(x, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def _heat(original: Array, denoised: Array) -> Image.Image:
    """Mean absolute difference over channels, as a share of black to white, in colours from black to pale yellow."""
    difference = np.abs(denoised - original).mean(axis=0) / 2
    colours = mpl.colormaps["inferno"](np.clip(difference / FULL_HEAT, 0, 1), bytes=True)
    return Image.fromarray(np.ascontiguousarray(colours[..., :3]))


def _shrunk(picture: Image.Image) -> Image.Image:
    """The picture, made smaller where a side is above LARGEST_SIDE; small ones are enlarged by the page."""
    factor = LARGEST_SIDE / max(picture.size)
    if factor >= 1:
        return picture
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _image_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return _data_uri(buffer.getvalue())


def _draw_both(size: tuple[float, float], draw: Callable[[Axes, Theme], None], alt: str) -> Picture:
    light, dark = (_draw(size, draw, theme) for theme in (LIGHT, DARK))
    return Picture(light, dark, round(size[0] * DPI), round(size[1] * DPI), alt)


def _draw(size: tuple[float, float], draw: Callable[[Axes, Theme], None], theme: Theme) -> str:
    with mpl.rc_context(
        {
            "text.color": theme.text,
            "axes.labelcolor": theme.text,
            "axes.edgecolor": theme.text,
            "axes.facecolor": "none",
            "xtick.color": theme.text,
            "ytick.color": theme.text,
            "font.size": 10,
        }
    ):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        draw(figure.subplots(), theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=DPI, format="png", metadata={"Software": None})
    return _data_uri(buffer.getvalue())


def _data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
