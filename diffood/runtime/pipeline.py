"""Scores items with a detector: decodes ahead of the engine, keeps the order, sets bad items aside."""

import itertools
from collections.abc import Iterable, Iterator

from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.decoding import IN_THREADS, DecodeOptions
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.item_pass import ItemResult, pass_turns
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.progress import Progress
from diffood.runtime.results import ImageScore


def score_files(
    detector: Detector,
    sources: Iterable[Item | Pause],
    limits: ImageLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    decoding: DecodeOptions = IN_THREADS,
) -> Iterator[ItemResult[ImageScore]]:
    """As `score_turns`, item by item."""
    return itertools.chain.from_iterable(score_turns(detector, sources, limits, progress, decoding))


def score_turns(
    detector: Detector,
    sources: Iterable[Item | Pause],
    limits: ImageLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    decoding: DecodeOptions = IN_THREADS,
) -> Iterator[list[ItemResult[ImageScore]]]:
    """Score items lazily; results come in the order of `sources`, those of refused items among them.

    Results that are there at the same time come together. All results before a pause are given before it.
    """
    shape, window = detector.bundle.manifest.image, detector.turn
    return pass_turns(detector.stream, sources, shape, window, limits, progress, decoding)


def observe_files(
    detector: Detector, sources: Iterable[Item], limits: ImageLimits = DEFAULT_LIMITS, progress: Progress | None = None
) -> Iterator[ItemResult[Evidence]]:
    """As `score_files`, but with the evidence of each item instead of its score."""
    shape, window = detector.bundle.manifest.image, detector.turn
    turns = pass_turns(detector.observe, sources, shape, window, limits, progress)
    return itertools.chain.from_iterable(turns)
