"""Keeps the most and the least suspicious images of a pass, and classifies their denoised versions."""

import bisect
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import Pixels, to_pixels
from diffood.runtime.method.scoring import Array, Float
from diffood.runtime.results import ImageScore

KEPT = 6  # images at each end of a set; a page of ten sets stays below some megabytes
TOP = 3  # classes named for an image


@dataclass(frozen=True)
class KeptImage:
    """One scored image.

    Attributes:
        id: Path relative to the input given.
        score: Higher is more suspicious.
        witnesses: float64 [W].
        original: Pixels uint8 [C, H, W].
        denoised: The same, denoised from the largest start time with the first noise; None where nothing was denoised.
        logits: Of the original, float32 [K].
    """

    id: str
    score: float
    witnesses: Float
    original: Pixels
    denoised: Pixels | None
    logits: Array


class Extremes:
    """The images of the highest and of the lowest scores among those seen. Memory is bounded by `count`."""

    def __init__(self, count: int = KEPT) -> None:
        self.count = count
        self._highest: list[KeptImage] = []  # the most suspicious first
        self._lowest: list[KeptImage] = []  # the least suspicious first

    def see(self, identity: str, result: ImageScore) -> None:
        """Look at one image's score and keep the image if it belongs to an end."""
        evidence, denoised = result.evidence, result.evidence.denoised
        image = KeptImage(
            id=identity,
            score=result.score,
            witnesses=result.witnesses,
            original=evidence.pixels,
            denoised=None if denoised is None else to_pixels(denoised),
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


class SetExtremes:
    """The extremes of each of several sets, by name."""

    def __init__(self) -> None:
        self._sets: defaultdict[str, Extremes] = defaultdict(Extremes)

    def see(self, name: str, identity: str, result: ImageScore) -> None:
        """Look at one image's score in the set of this name."""
        self._sets[name].see(identity, result)

    def of(self, name: str) -> Extremes:
        """The extremes of one set, empty where nothing of it was seen."""
        return self._sets[name]


@dataclass(frozen=True)
class ClassGuess:
    """A class and the classifier's softmax probability of it."""

    class_name: str
    probability: float


@dataclass(frozen=True)
class ClassifiedImage:
    """A kept image with its TOP classes before and after denoising, the likeliest first; none after where none was."""

    image: KeptImage
    before: tuple[ClassGuess, ...]
    after: tuple[ClassGuess, ...]


def classify_again(detector: Detector, images: tuple[KeptImage, ...]) -> tuple[ClassifiedImage, ...]:
    """Name the classes of kept images and of their denoised versions.

    A denoised version is classified as an image file of it would be, rounded to 8 bits; the witnesses compared it
    unrounded.
    """
    names = detector.bundle.manifest.class_names
    denoised = {image.id: image.denoised for image in images if image.denoised is not None}
    after = {key: _top(evidence.logits, names) for key, evidence in detector.observe(denoised.items())}
    return tuple(ClassifiedImage(image, _top(image.logits, names), after.get(image.id, ())) for image in images)


def _top(logits: Array, names: tuple[str, ...]) -> tuple[ClassGuess, ...]:
    wide = logits.astype(np.float64)
    shares = np.exp(wide - wide.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")[:TOP]
    return tuple(ClassGuess(names[index], float(shares[index])) for index in order)


def _suspicion(image: KeptImage) -> float:
    """A score that is not finite is flagged whichever way it points, so it is the most suspicious of all."""
    return image.score if math.isfinite(image.score) else math.inf


def _from_highest(image: KeptImage) -> tuple[float, str]:
    return -_suspicion(image), image.id


def _from_lowest(image: KeptImage) -> tuple[float, str]:
    return _suspicion(image), image.id
