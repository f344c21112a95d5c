"""The picture of a training: what a denoiser of one image makes of it."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffood.training.loop import noise_levels
from diffood.training.picture import draw_picture

GREY = 0.5  # the image that the denoiser knows, all of it


def denoiser_of_grey(x: np.ndarray, time: int, labels: np.ndarray | None) -> np.ndarray:
    """The noise in a noised grey image; none found at high times, and never more than 4, as early in a training."""
    level = noise_levels()[time]
    found = np.clip((x - np.sqrt(level) * GREY) / np.sqrt(1 - level), -4, 4)
    return np.asarray(found if time < 800 else np.zeros_like(x), np.float32)


def test_denoised_images_and_samples_are_what_the_denoiser_knows() -> None:
    images = np.full((8, 1, 8, 8), GREY, np.float32)
    for labels in (None, np.zeros(8, np.int64)):
        with Image.open(io.BytesIO(draw_picture(denoiser_of_grey, images, labels, 1, noise_levels()))) as picture:
            sheet = np.asarray(picture).reshape(4, 8 * 8, 8, 64)[:, ::8, :, ::8]  # rows, height, columns, width
        wanted = round((GREY + 1) * 127.5)
        assert np.all(sheet[0] == wanted)
        assert np.abs(sheet[1].astype(float) - wanted).mean() > 30  # noised
        for row in sheet[2:]:
            assert np.abs(row.astype(float) - wanted).max() < 10
