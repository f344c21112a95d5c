"""Noise of an image: a function of its content, a seed and the repeat, never of batch or order."""

import hashlib

import numpy as np
import numpy.typing as npt

NOISE_RULE = "philox-box-muller-1"  # part of the fingerprint: another rule is another calibration


def content_key(x: npt.NDArray[np.float32]) -> bytes:
    """32 bytes that identify a prepared image [C, H, W]: SHA-256 of its shape and little-endian float32 values."""
    digest = hashlib.sha256(repr(x.shape).encode())
    digest.update(np.ascontiguousarray(x, "<f4").tobytes())
    return digest.digest()


def draw_noise(content: bytes, seed: int, repeat: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Standard normal float32 of `shape`, a pure function of its arguments.

    Philox's raw 64-bit stream (Salmon et al. 2011; numpy keeps it stable across versions, unlike its normals)
    through the Box-Muller transform.
    """
    material = content + NOISE_RULE.encode() + seed.to_bytes(8, "little") + repeat.to_bytes(8, "little")
    key = int.from_bytes(hashlib.sha256(material).digest()[:16], "little")
    count = int(np.prod(shape))
    half = (count + 1) // 2
    raw = np.random.Philox(key=key).random_raw(2 * half)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # 53 bits, strictly inside (0, 1)
    radius = np.sqrt(-2 * np.log(uniform[:half]))
    angle = 2 * np.pi * uniform[half:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return normal.astype(np.float32).reshape(shape)


def mix(
    scale: tuple[float, float], x: npt.NDArray[np.float32], noise: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """scale[0]·x + scale[1]·noise in float32: one or several images, noised to the level of the scales."""
    return np.asarray(np.float32(scale[0]) * x + np.float32(scale[1]) * noise, np.float32)
