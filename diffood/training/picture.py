"""A picture of what a UNet makes: held-out images, noised, denoised as for a verdict, and samples out of noise."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffood.runtime.images.pixels import to_pixels
from diffood.runtime.method.plan import PLAIN, Plan
from diffood.runtime.method.schedule import StepTable
from diffood.runtime.method.scoring import Array

COLUMNS = 8
SAMPLE_STEPS = 25
SMALLEST_TILE = 64  # pixels of a tile's side; smaller images are enlarged

Denoise = Callable[[Array, int, npt.NDArray[np.int64] | None], Array]


def draw_picture(
    denoise: Denoise, images: Array, labels: npt.NDArray[np.int64] | None, null: int, alpha_bar: npt.NDArray[np.float64]
) -> bytes:
    """A PNG of four rows: images, noised, denoised from there, samples of the same labels out of pure noise.

    Args:
        denoise: Predicts the noise in x at a time, for labels.
        images: float32 [B, C, H, W] in [-1, 1].
        labels: Of them; None for a UNet without.
        null: The null class.
        alpha_bar: Noise levels, float64 [T].
    """
    plan = PLAIN if labels is not None else PLAIN.changed({"guidance": 0.0})
    noise = np.random.default_rng(0).standard_normal(images.shape).astype(np.float32)
    [table] = plan.tables(alpha_bar, "epsilon")
    noised = _mix(table, images, noise)
    denoised = follow(denoise, noised, table, labels, null, plan)
    return _tile([images, noised, denoised, _sample(denoise, noise, labels, len(alpha_bar))])


def _mix(table: StepTable, images: Array, noise: Array) -> Array:
    signal, scale = table.noise_scale
    mixed: Array = np.float32(signal) * images + np.float32(scale) * noise
    return mixed


def follow(
    denoise: Denoise, x: Array, table: StepTable, labels: npt.NDArray[np.int64] | None, null: int, plan: Plan
) -> Array:
    """What is left of x after all steps of a table of DDIM, guided where there are labels."""
    for time, coefficients in zip(table.times, table.coefficients, strict=True):
        p_x, p_m, c_x, c_eps = map(np.float32, coefficients)
        output = denoise(x, int(time), labels)
        if labels is not None and plan.guidance:
            beta = np.float32(plan.guidance)
            output = (1 + beta) * output - beta * denoise(x, int(time), np.full_like(labels, null))
        x = c_x * x + c_eps * (p_x * x + p_m * output)
    return x


def _sample(denoise: Denoise, noise: Array, labels: npt.NDArray[np.int64] | None, times: int) -> Array:
    """Samples out of pure noise, not guided. Each step clips what it takes for the image, without which errors grow."""
    import torch
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=times, clip_sample=True)
    scheduler.set_timesteps(SAMPLE_STEPS)
    x = torch.from_numpy(noise)
    for time in scheduler.timesteps:
        x = scheduler.step(torch.from_numpy(denoise(x.numpy(), int(time), labels)), int(time), x).prev_sample
    return np.asarray(x.numpy())


def _tile(rows: list[Array]) -> bytes:
    pixels = to_pixels(np.stack(rows))  # [rows, B, C, H, W]
    count, columns, channels, height, width = pixels.shape
    sheet = pixels.transpose(0, 3, 1, 4, 2).reshape(count * height, columns * width, channels)
    image = Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
    scale = max(1, SMALLEST_TILE // max(height, width))
    file = io.BytesIO()
    image.resize((scale * image.width, scale * image.height), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()
