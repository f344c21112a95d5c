"""Reads caches of splits, and says what their keys mean.

Of every set (`sets.py` names them): images uint8 [N, 28, 28] (surfaces [N, 32, 32, 3]), labels int64 [N], logits
float32 [N, K] and features float32 [N, 128] of the clean image, and inside, as blocks below but of the classifier's
CLASSIFIER_BLOCKS, float16 [N, 480]; perturbed, features of the image with the perturbation of AdaSCALE, float32
[N, 128]. Of every noising (`NOISINGS`), for "train" of its first images only:

- eps, eps_null: the UNet's prediction for the predicted class and for no class, float16 [N, C, H, W];
- blocks, blocks_null: of each of BLOCKS in turn, means and then standard deviations of its channels, float16 [N, 864];
- one/…, guided/…: of the image denoised in one step by eps, and by (1 + beta)·eps - beta·eps_null with the default
  plan's beta: its logits float32 [N, K], features float16 [N, 128], inside, reconstruction float64 [N] (the
  witness of that name for this noising alone) and error_map float16 [N, H/4, W/4], squared differences in squares
  of 4x4.

What guidance or no class enters is there for the start times of WITHOUT_CLASS alone.
head_weight [K, 128], head_bias [K] and alpha_bar [1000] are the models' own. Models without a UNet leave
what the classifier says of the images alone.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.noise import make_pool
from diffood.runtime.method.plan import DEFAULT
from diffood.runtime.method.schedule import noise_scale
from diffood.runtime.method.scoring import Array
from research.datasets import channels_first

START_TIMES = (60, 120, 240, 360, 480)
NOISINGS = (*((time, 0) for time in START_TIMES), (360, 1))
"""Start time and repeat; the default plan takes both repeats of 360."""
WITHOUT_CLASS = (360,)
"""Start times at which the UNet is also asked without a class, as guidance needs it."""
BLOCKS = ("down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.0", "up_blocks.1", "up_blocks.2")
CHANNELS = (24, 48, 96, 96, 96, 48, 24)
"""Of each block's output."""
CLASSIFIER_BLOCKS, CLASSIFIER_CHANNELS = ("stem", "block1", "block2", "block3"), (24, 24, 64, 128)


def noising_key(time: int, repeat: int = 0) -> str:
    """The part of a key that names a noising."""
    return f"t{time}-{repeat}"


@dataclass(frozen=True)
class SplitCache:
    """The cache of one split, opened; arrays are read when they are asked for."""

    path: Path

    @cached_property
    def _file(self) -> Any:
        return np.load(self.path, allow_pickle=False)

    def __getitem__(self, key: str) -> npt.NDArray[Any]:
        return np.asarray(self._file[key])

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """All keys."""
        return tuple(self._file)

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets: "train", "validation", "test", "near-…" and "far-…"."""
        return tuple(key.removesuffix("/images") for key in self.keys if key.endswith("/images"))

    @property
    def denoised_too(self) -> bool:
        """Whether there was a UNet."""
        return "alpha_bar" in self.keys

    def block(self, name: str, key: str, block: str) -> npt.NDArray[Any]:
        """Means and standard deviations [N, 2·C] of one block of a set's noising (or of "blocks_null")."""
        at = 2 * sum(CHANNELS[: BLOCKS.index(block)])
        return self[f"{name}/{key}"][:, at : at + 2 * CHANNELS[BLOCKS.index(block)]].astype(np.float64)

    def denoised(self, name: str, time: int, repeat: int = 0, beta: float = 0.0) -> Array:
        """A set's images in [-1, 1] denoised in one step with any guidance, float32 [N, C, H, W]."""
        key = f"{name}/{noising_key(time, repeat)}"
        predicted = self[f"{key}/eps"].astype(np.float32)
        if beta:
            predicted = np.asarray((1 + beta) * predicted - beta * self[f"{key}/eps_null"], np.float32)
        pixels = channels_first(self[f"{name}/images"][: len(predicted)])
        noise = make_pool(DEFAULT.seed, repeat + 1, pixels[0].size, pixels[0].size).draw(pixels, pixels.shape[1:])
        signal, strength = noise_scale(float(self["alpha_bar"][time]))
        noisy = signal * from_pixels(pixels) + strength * noise[repeat]
        return np.asarray(np.clip((noisy - strength * predicted) / signal, -1, 1), np.float32)
