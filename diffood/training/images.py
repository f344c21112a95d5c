"""Reads the images to train on, once, into one array on disk; hostile and broken ones are set aside."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.errors import UsageError
from diffood.runtime.images.decode import ImageLimits, ImageShape
from diffood.runtime.images.probe import probe_shape
from diffood.runtime.inputs.decoding import decode_ahead
from diffood.runtime.inputs.items import Item, Pause

FEWEST = 20
"""Images below which nothing is trained: some must be held out, and the rest is learned by heart."""
PROBED = 256  # images whose own shape is looked at
LARGEST_SIDE = 64
"""Pixels that the longer side has unless the user says otherwise: a UNet's cost grows with the square of it."""
MULTIPLE = 8  # sides can then be halved three times
SMALLEST_LEVEL, LARGEST_LEVEL = 8, 16  # longer side of the deepest level: halved until this, and never above that
WINDOW = 64  # items decoded ahead


@dataclass(frozen=True)
class TrainingImages:
    """The images that can be used, each content once.

    Attributes:
        pixels: uint8 [N, C, H, W], a map of an unlinked file.
        ids: Of the items, in the order of pixels.
        sha256: Of the bytes of their files.
        digest: SHA-256 over the ids and hashes of all images.
        repeated: Files left out because another has the same bytes.
        converted: Images that were resized, turned or converted, by note.
        set_aside: (id, reason) of those that cannot be used.
    """

    pixels: npt.NDArray[np.uint8]
    ids: tuple[str, ...]
    sha256: frozenset[str]
    digest: str
    repeated: int
    converted: dict[str, int]
    set_aside: tuple[tuple[str, str], ...]

    @property
    def shape(self) -> ImageShape:
        """What all images have."""
        return ImageShape(*self.pixels.shape[1:])


def count_levels(height: int, width: int) -> int:
    """How often sides can be halved until the longer is small enough, and one."""
    levels = 1
    while max(height, width) > SMALLEST_LEVEL and not (height % 2 or width % 2):
        height, width, levels = height // 2, width // 2, levels + 1
    return levels


def fits(height: int, width: int) -> bool:
    """Whether a UNet of images of this size reaches a small deepest level."""
    return max(height, width) >> (count_levels(height, width) - 1) <= LARGEST_LEVEL


def choose_shape(items: Sequence[Item], size: tuple[int, int] | None, limits: ImageLimits) -> tuple[ImageShape, str]:
    """The shape to train at, and in words why: grey if all images are, the images' own size if it is common and small.

    Raises UsageError where no image can be read, or the size given cannot be halved often enough.
    """
    chosen = [items[index] for index in np.unique(np.linspace(0, len(items) - 1, PROBED).round().astype(int))]
    probed = [shape for item in chosen if (shape := probe_shape(lambda: item.read(limits), limits))]  # noqa: B023
    if not probed:
        raise UsageError(f"None of {len(chosen)} images tried can be read, {items[0].id!r} for example; check them.")
    channels = 1 if all(shape.channels == 1 for shape in probed) else 3
    sizes = Counter((shape.height, shape.width) for shape in probed)
    common, count = min(sizes.items(), key=lambda found: (-found[1], found[0]))
    if size is not None:
        if not fits(*size):
            better = "x".join(str(_rounded(side)) for side in size)
            raise UsageError(f"Images of {size[0]}x{size[1]} cannot be halved often enough; {better} can.")
        return ImageShape(channels, *size), "as asked for"
    if count == len(probed) and max(common) <= LARGEST_SIDE and fits(*common):
        return ImageShape(channels, *common), "their own size"
    height, width = (float(np.median([getattr(shape, side) for shape in probed])) for side in ("height", "width"))
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    shape = ImageShape(channels, _rounded(height * scale), _rounded(width * scale))
    return shape, f"from {common[0]}x{common[1]} and {len(sizes) - 1} other sizes; --image-size HxW changes it"


def _rounded(side: float) -> int:
    return max(MULTIPLE, MULTIPLE * round(side / MULTIPLE))


def read_training_images(
    items: Sequence[Item], shape: ImageShape, limits: ImageLimits, advance: Callable[[int], None]
) -> TrainingImages:
    """Decode all items.

    Raises:
        UsageError: Too few can be used.
        OSError: The disk has no space for the pixels.
    """
    ids: list[str] = []
    set_aside: list[tuple[str, str]] = []
    converted: Counter[str] = Counter()
    seen: set[str] = set()
    digest, repeated = hashlib.sha256(), 0
    with tempfile.TemporaryFile() as file:
        for found in decode_ahead(items, shape, limits, WINDOW):
            assert not isinstance(found, Pause)
            item, image = found
            if image.pixels is None:
                set_aside.append((item.id, image.error))
            elif image.sha256 in seen:
                repeated += 1
            else:
                seen.add(image.sha256)
                ids.append(item.id)
                digest.update(f"{image.sha256} {item.id}\n".encode())
                file.write(image.pixels.tobytes())
                converted.update([image.note] if image.note else [])
            advance(1)
        if len(ids) < FEWEST:
            reason = f" {set_aside[0][0]!r}: {set_aside[0][1]}" if set_aside else ""
            raise UsageError(
                f"{len(ids)} images can be used and {len(set_aside)} cannot; a training takes at least {FEWEST}, "
                f"better thousands.{reason}"
            )
        file.flush()
        planes = (len(ids), shape.channels, shape.height, shape.width)
        pixels = np.memmap(file, np.uint8, "r", shape=planes)  # keeps the unlinked file open
    return TrainingImages(
        pixels, tuple(ids), frozenset(seen), digest.hexdigest(), repeated, dict(converted), tuple(set_aside)
    )
