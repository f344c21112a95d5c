"""The images with which a page checks its browser and engine before it judges: files, pixels, and Python's answers."""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.bundle.calibration import Calibration, load_calibrated_fusion
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.golden import read_golden
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageShape, decode

PATTERN = (203, 61)  # height and width: tall, so that the order of Pillow's two passes matters


@dataclass(frozen=True)
class CheckImage:
    """An image that a browser must read, and an engine judge, as Python does.

    Attributes:
        png: The file.
        pixels: What Python reads from it, uint8 [C, H, W].
        answer: score (None where it is not finite) and is_ood; None where only the pixels are compared.
    """

    png: bytes
    pixels: npt.NDArray[np.uint8]
    answer: dict[str, Any] | None


def make_checks(bundle: Bundle, calibration: Calibration, precision: Precision) -> list[CheckImage]:
    """Check images of a bundle: its golden ones with Python's verdicts, and a transparent one of another size."""
    images, fusion = read_golden(bundle).image, load_calibrated_fusion(bundle, calibration)
    with Detector.load(bundle, calibration.fingerprint.plan, precision=precision, fusion=fusion) as detector:
        scores = detector.score_pixels(images)
    decisions = DecisionRule.of(calibration).decide(scores.score, scores.predicted)
    checks = [
        CheckImage(
            _png(image.transpose(1, 2, 0)),
            image,
            {"score": float(value) if math.isfinite(value) else None, "is_ood": bool(flagged)},
        )
        for image, value, flagged in zip(images, scores.score, decisions.is_ood, strict=True)
    ]
    return [*checks, _check_pattern(bundle.manifest.image)]


def _check_pattern(shape: ImageShape) -> CheckImage:
    """Colours that are transparent to every degree, in an image that must be resized."""
    y, x = np.mgrid[: PATTERN[0], : PATTERN[1]]
    pattern = np.stack([x * 4, y, 7 * x + 13 * y, x + y], axis=-1).astype(np.uint8)
    png = _png(pattern)
    pixels, _ = decode(png, shape, DEFAULT_LIMITS)
    return CheckImage(png, pixels, None)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels uint8 [H, W, C]."""
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()
