"""Scores items: decodes ahead of the engine, keeps the order, sets bad items aside. Memory is bounded by the batch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS, DecodedImage, ImageLimits
from diffood.runtime.inputs.decoding import IN_THREADS, MOST_HELD, DecodeOptions, decode_ahead
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.method.scoring import Array
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.progress import Progress
from diffood.runtime.results import ImageScore

REFUSED_HELD = 1000  # consecutive refused items after which their results are given; some kilobytes each

Result = TypeVar("Result")


@dataclass(frozen=True)
class ItemResult(Generic[Result]):
    """What became of one item; `result` is None if it was refused, and `loaded.error` says why."""

    source: Item
    loaded: DecodedImage
    result: Result | None


def score_files(
    detector: Detector,
    sources: Iterable[Item | Pause],
    limits: ImageLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    decoding: DecodeOptions = IN_THREADS,
) -> Iterator[ItemResult[ImageScore]]:
    """Score items lazily; results come in the order of `sources`, those of refused items among them.

    All results before a pause are given before it.
    """
    return _pass_files(detector, detector.stream, sources, limits, progress, decoding)


def observe_files(
    detector: Detector, sources: Iterable[Item], limits: ImageLimits = DEFAULT_LIMITS, progress: Progress | None = None
) -> Iterator[ItemResult[Evidence]]:
    """As `score_files`, but with the evidence of each item instead of its score."""
    return _pass_files(detector, detector.observe, sources, limits, progress)


def _pass_files(
    detector: Detector,
    work: Callable[[Iterable[tuple[Item, Array]]], Iterator[tuple[Item, Result]]],
    sources: Iterable[Item | Pause],
    limits: ImageLimits,
    progress: Progress | None,
    decoding: DecodeOptions = IN_THREADS,
) -> Iterator[ItemResult[Result]]:
    waiting: deque[tuple[Item, DecodedImage]] = deque()  # in order; those before the next result were refused
    decoded = decode_ahead(sources, detector.bundle.manifest.image, limits, detector.session.batch, decoding)
    more, held = True, 0  # held: bytes that the waiting items keep in memory

    def accepted() -> Iterator[tuple[Item, Array]]:
        """Feed the detector; ends early after many refused or heavy items, which must not fill memory.

        It ends at a pause, too: a partial batch must not wait for the next item.
        """
        nonlocal more, held
        refused_in_a_row = 0
        for pair in decoded:
            if isinstance(pair, Pause):
                return
            source, loaded = pair
            waiting.append((source, loaded))
            held += source.held
            refused_in_a_row = 0 if loaded.x is not None else refused_in_a_row + 1
            if loaded.x is not None:
                yield source, loaded.x
            if refused_in_a_row == REFUSED_HELD or held > MOST_HELD:
                return
        more = False

    def oldest(result: Result | None) -> ItemResult[Result]:
        nonlocal held
        source, loaded = waiting.popleft()
        held -= source.held
        return _counted(ItemResult(source, loaded, result), progress)

    def refused() -> Iterator[ItemResult[Result]]:
        while waiting and waiting[0][1].x is None:
            yield oldest(None)

    with closing(decoded):  # ends its processes at once if the pass ends early
        while more:
            for _, result in work(accepted()):
                yield from refused()
                yield oldest(result)
            yield from refused()


def _counted(outcome: ItemResult[Result], progress: Progress | None) -> ItemResult[Result]:
    if progress:
        progress(1)
    return outcome
