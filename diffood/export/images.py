"""Reads the in-distribution images whose value ranges int8 is fitted to."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from diffood.errors import UsageError
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageShape, load_image
from diffood.runtime.inputs.files import expand_inputs
from diffood.runtime.sessions import Array


def read_some(folders: Sequence[Path], shape: ImageShape, most: int, report: Callable[[str], None]) -> Array:
    """At most `most` images float32 [N, C, H, W] in [-1, 1], evenly over the folders' files; unusable ones reported.

    Raises UsageError where none can be used, or a folder is missing.
    """
    sources = expand_inputs([str(folder) for folder in folders])
    chosen = [sources[index] for index in np.unique(np.linspace(0, len(sources) - 1, most).round().astype(int))]
    loaded = [(source, load_image(source.path, shape, DEFAULT_LIMITS)) for source in chosen]
    for source, image in loaded:
        if image.x is None:
            report(f"set aside   {source.id!r}: {image.error}")
    usable = [image.x for _, image in loaded if image.x is not None]
    if not usable:
        raise UsageError(f"None of the {len(chosen)} files tried under {folders[0]} is a usable image; see above.")
    return np.stack(usable)
