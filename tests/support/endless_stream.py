"""An endless source of images that counts what was pulled from it, for tests of how far ahead a stream runs."""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


class Endless:
    """(number, pixels) of uint8 images [N, H, W], round and round. pulled: how many were asked for."""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self.pulled = 0
        self._images = images[:, None]

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        for key, x in enumerate(itertools.cycle(self._images)):
            self.pulled += 1
            yield key, x
