"""Noise of an image, rule pool-1: a window of a fixed pool of normals, at an offset that its pixels alone decide.

Integer arithmetic, so that numpy and every engine find the same bits. The pool is fixed, so a score is a function of
the image: images that are exchangeable have exchangeable scores.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.scoring import Array

NOISE_RULE = "pool-1"  # part of the fingerprint: another rule is another calibration
OFFSETS = 2**20  # windows of the pool


@dataclass(frozen=True)
class NoisePool:
    """What the noise of all images is taken from.

    Attributes:
        values: Standard normals that float16 represents exactly, so that a graph stores half: float32 [OFFSETS + D].
        factors: Of the pixels by repeat, odd, so that a change of one pixel always changes the offset; below OFFSETS,
            int64 [R, P].
    """

    values: Array
    factors: npt.NDArray[np.int64]

    def offsets(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Where the windows of images uint8 [B, P] begin, by repeat: [R, B]."""
        return np.asarray(self.factors @ pixels.astype(np.int64).T % OFFSETS)

    def draw(self, pixels: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> Array:
        """Noise [R, B, *shape] of images uint8 [B, ...]."""
        offsets = self.offsets(pixels.reshape(len(pixels), -1))
        windows = np.lib.stride_tricks.sliding_window_view(self.values, len(self.values) - OFFSETS)
        return np.asarray(windows[offsets].reshape(*offsets.shape, *shape))


def make_pool(seed: int, repeats: int, pixels: int, size: int) -> NoisePool:
    """The pool for images of so many values (their pixels, times channels) and noise of `size` values.

    A prefix of it is the pool for fewer repeats, and for smaller noise.
    """
    factors = [_raw("factors", seed, repeat, pixels) % np.uint64(OFFSETS // 2) for repeat in range(repeats)]
    return NoisePool(
        values=_normals(seed, OFFSETS + size).astype(np.float16).astype(np.float32),
        factors=2 * np.array(factors, np.int64) + 1,
    )


def _raw(what: str, seed: int, stream: int, count: int) -> npt.NDArray[np.uint64]:
    """Philox's raw 64-bit stream (Salmon et al. 2011; numpy keeps it stable across versions, unlike its normals)."""
    material = f"{NOISE_RULE} {what} {seed} {stream}".encode()
    key = int.from_bytes(hashlib.sha256(material).digest()[:16], "little")
    raw: Any = np.random.Philox(key=key).random_raw(count)
    return np.asarray(raw, np.uint64)


def _normals(seed: int, count: int) -> npt.NDArray[np.float64]:
    """Standard normals through the Box-Muller transform of pairs, so that a longer pool begins with a shorter one."""
    raw = _raw("pool", seed, 0, 2 * ((count + 1) // 2))
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # 53 bits, strictly inside (0, 1)
    radius, angle = np.sqrt(-2 * np.log(uniform[::2])), 2 * np.pi * uniform[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:count]
