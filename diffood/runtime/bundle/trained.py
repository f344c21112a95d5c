"""training_images.npz: which images the UNet was trained on, where `diffood train-unet` made it. Trains nothing.

The first 8 bytes of the SHA-256 of each file, uint64 [N], ascending: enough to recognise an image, and for a million of
them small compared with the weights.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffood.errors import BundleError
from diffood.runtime.bundle.arrays import load_arrays
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.files import read_regular

TRAINED = "training_images.npz"
DIGITS = 16  # hexadecimal ones of a SHA-256 that are kept
MAX_TRAINED_BYTES = 64 * 2**20  # eight million images

Hashes = npt.NDArray[np.uint64]


def shorten(sha256s: Iterable[str]) -> Hashes:
    """The kept part of these hashes, uint64 [N], ascending and distinct."""
    return np.unique(np.array([int(found[:DIGITS], 16) for found in sha256s], np.uint64))


def pack_trained(images: Hashes) -> bytes:
    """The content of the file."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, images=images)
    return stream.getvalue()


def load_trained(bundle: Bundle) -> frozenset[str]:
    """The first DIGITS digits of the SHA-256 of the images that the bundle's UNet was trained on.

    Empty where that is not known. Raises BundleError if the file is damaged.
    """
    if TRAINED not in bundle.manifest.files:
        return frozenset()
    return frozenset(f"{value:0{DIGITS}x}" for value in _unpack(bundle.read(TRAINED), bundle.path).tolist())


def read_trained(folder: Path) -> Hashes | None:
    """The content of the file in a UNet's folder, None where there is none. Raises BundleError if it is damaged."""
    if not (folder / TRAINED).exists():
        return None
    return _unpack(read_regular(folder, TRAINED, MAX_TRAINED_BYTES, "remove it"), folder)


def _unpack(data: bytes, folder: Path) -> Hashes:
    images = load_arrays(data, str(folder / TRAINED), "remove it").get("images")
    if images is None or images.dtype != np.uint64 or images.ndim != 1:
        raise BundleError(f"{folder / TRAINED} needs hashes of images, uint64 [N], named images; remove it.")
    return images
