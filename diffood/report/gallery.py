"""Keeps the most and the least suspicious images of a pass, and asks the classifier about their denoised selves."""

import bisect
import math
from dataclasses import dataclass

import numpy as np

from diffood.runtime.detector import Detector, ImageScore
from diffood.runtime.method.scoring import Float
from diffood.runtime.sessions import Array

KEPT = 6  # images at each end of a set; a page of ten sets stays below some megabytes
TOP = 3  # classes named for an image


@dataclass(frozen=True)
class KeptImage:
    """What is kept of one image.

    original and denoised float32 [C, H, W] in [-1, 1], denoised from the largest start time with the first noise;
    logits float32 [K] of the original; witnesses float64 [W].
    """

    id: str
    score: float
    witnesses: Float
    original: Array
    denoised: Array
    logits: Array


class Extremes:
    """The images of the highest and of the lowest scores among those seen. Memory is bounded by `count`."""

    def __init__(self, count: int = KEPT) -> None:
        self.count = count
        self._highest: list[KeptImage] = []  # the most suspicious first
        self._lowest: list[KeptImage] = []  # the least suspicious first

    def see(self, identity: str, result: ImageScore) -> None:
        """Look at one image's score and keep the image if it belongs to an end."""
        evidence = result.evidence
        image = KeptImage(
            id=identity,
            score=result.score,
            witnesses=result.witnesses,
            original=evidence.x,
            denoised=evidence.denoised[0, -1].copy(),  # a view would hold all repeats
            logits=evidence.logits,
        )
        bisect.insort(self._highest, image, key=_from_highest)
        bisect.insort(self._lowest, image, key=_from_lowest)
        del self._highest[self.count :], self._lowest[self.count :]

    @property
    def highest(self) -> tuple[KeptImage, ...]:
        """The most suspicious, in falling order."""
        return tuple(self._highest)

    @property
    def lowest(self) -> tuple[KeptImage, ...]:
        """The least suspicious that are not among the most, in rising order."""
        taken = {image.id for image in self._highest}
        return tuple(image for image in self._lowest if image.id not in taken)


@dataclass(frozen=True)
class Guess:
    """A class and the classifier's softmax probability of it."""

    class_name: str
    share: float


@dataclass(frozen=True)
class Judged:
    """A kept image with the classifier's TOP classes for it and for its denoised self, the likeliest first."""

    image: KeptImage
    before: tuple[Guess, ...]
    after: tuple[Guess, ...]


def judge(detector: Detector, images: tuple[KeptImage, ...]) -> tuple[Judged, ...]:
    """Classify the denoised selves of kept images and name the classes of both."""
    if not images:
        return ()
    names = detector.bundle.manifest.class_names
    after = detector.session.classify(np.stack([image.denoised for image in images])).logits
    return tuple(
        Judged(image, _top(image.logits, names), _top(logits, names))
        for image, logits in zip(images, after, strict=True)
    )


def _top(logits: Array, names: tuple[str, ...]) -> tuple[Guess, ...]:
    wide = logits.astype(np.float64)
    shares = np.exp(wide - wide.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")[:TOP]
    return tuple(Guess(names[index], float(shares[index])) for index in order)


def _suspicion(image: KeptImage) -> float:
    """A score that is not finite is flagged whichever way it points, so it is the most suspicious of all."""
    return image.score if math.isfinite(image.score) else math.inf


def _from_highest(image: KeptImage) -> tuple[float, str]:
    return -_suspicion(image), image.id


def _from_lowest(image: KeptImage) -> tuple[float, str]:
    return _suspicion(image), image.id
