"""Writes what two other diffusion detectors need: DiffPath's statistics of a path to noise, and CFS's activations.

Keys are SET/path, the six statistics float64 [N, 6] of PATH_STEPS evaluations, and SET/blocks, as in `cache.py`, of one
evaluation at the step that is nearest to CFS's noise level. The UNet is asked without a class, as in both papers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.noise import make_pool
from diffood.runtime.method.plan import DEFAULT
from diffood.runtime.method.schedule import noise_scale
from diffood.runtime.method.scoring import Array
from research.datasets import channels_first
from research.left_out.extract import BATCH, Arrays, SplitModels, open_models, write_arrays
from research.left_out.sets import split_sets

PATH_STEPS = 10  # the authors'
CFS_LOG_SNR = 5.0  # the authors' single level


def extract_paths(
    models: Path, data: Path, without: Sequence[int], output: Path, limit: int | None, threads: int
) -> None:
    """Write both of every set but the training images; with a limit, of so many images of each set."""
    found: Arrays = {}
    sets = split_sets(data, without)
    with open_models(models, sets["test"].side, threads) as split:
        for name, stored in sets.items():
            if name == "train":
                continue
            images = channels_first(stored.images[:limit])
            batches = [images[at : at + BATCH] for at in range(0, len(images), BATCH)]
            found[f"{name}/path"] = np.concatenate([path_statistics(split, batch) for batch in batches])
            found[f"{name}/blocks"] = np.concatenate([_cfs_blocks(split, batch) for batch in batches])
            print(f"{output.name}: {name}, {len(images)} images", flush=True)
    write_arrays(output, found)


def path_statistics(split: SplitModels, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Sums of eps, eps², eps³ and of the same powers of its change along the path, [B, 6].

    Heng et al. 2024, arXiv 2405.11881, DiffPath-6D, with the sums of the authors' code.
    """
    eps = np.stack(list(_noise_along_path(split, from_pixels(images))), 1).astype(np.float64)
    change = np.diff(eps, axis=1) * PATH_STEPS
    sums = [(values**power).sum((1, 2, 3, 4)) for values in (eps, change) for power in (1, 2, 3)]
    return np.stack(sums, 1)


def _noise_along_path(split: SplitModels, x: Array) -> Iterator[Array]:
    """The noise predicted at each step of the DDIM inversion of x [B, C, H, W]; images it implies are clipped."""
    stride = len(split.alpha_bar) // PATH_STEPS
    label = np.full(len(x), split.classes)
    for step in range(PATH_STEPS):
        signal, strength = map(np.float32, noise_scale(float(split.alpha_bar[step * stride])))
        eps, _ = split.predict(x, step * stride, label)
        clean = np.clip((x - strength * eps) / signal, -1, 1)
        eps = (x - signal * clean) / strength
        yield eps
        following = float(split.alpha_bar[(step + 1) * stride]) if step + 1 < PATH_STEPS else 0.0
        signal, strength = map(np.float32, noise_scale(following))
        x = signal * clean + strength * eps


def _cfs_blocks(split: SplitModels, images: npt.NDArray[np.uint8]) -> Array:
    log_snr = np.log(split.alpha_bar / (1 - split.alpha_bar))
    time = int(np.abs(log_snr - CFS_LOG_SNR).argmin())
    signal, strength = map(np.float32, noise_scale(float(split.alpha_bar[time])))
    noise = make_pool(DEFAULT.seed, 1, images[0].size, images[0].size).draw(images, images.shape[1:])[0]
    _, blocks = split.predict(
        signal * from_pixels(images) + strength * noise, time, np.full(len(images), split.classes)
    )
    return blocks.astype(np.float16)
