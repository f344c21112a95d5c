"""Files to rows: decodes ahead of the engine, keeps the order, sets bad files aside. Memory is bounded by the batch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from diffood.runtime.detector import Detector, ImageScore
from diffood.runtime.images.decode import DEFAULT_LIMITS, DecodedImage, ImageLimits
from diffood.runtime.inputs.decoding import IN_THREADS, MOST_HELD, DecodeOptions, decode_ahead
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.method.scoring import Array
from diffood.runtime.method.witnesses.definition import Evidence

REFUSED_HELD = 1000  # refused files in a row after which their rows are brought out; some kilobytes each

Result = TypeVar("Result")
Progress = Callable[[int], None]  # called with the number of files done since the last call


@dataclass(frozen=True)
class ItemResult(Generic[Result]):
    """One file's way through: result is None where the file was refused (loaded.error says why)."""

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
    """Score files lazily; outcomes come in the order of `sources`, refused files among them.

    Where the sources pause, all outcomes before the pause are given first.
    """
    return _pass_files(detector, detector.stream, sources, limits, progress, decoding)


def observe_files(
    detector: Detector, sources: Iterable[Item], limits: ImageLimits = DEFAULT_LIMITS, progress: Progress | None = None
) -> Iterator[ItemResult[Evidence]]:
    """As `score_files`, but with what a pass leaves of each file, before anything is made of it."""
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
    more, held = True, 0  # held: bytes that the waiting items hold themselves

    def accepted() -> Iterator[tuple[Item, Array]]:
        """Feed the detector; ends early in a long run of refused files or heavy items, which must not fill memory.

        And where the sources pause: an unfilled batch must not wait for the next file.
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

    with closing(decoded):  # whose processes end at once where the pass ends early
        while more:
            for _, result in work(accepted()):
                yield from refused()
                yield oldest(result)
            yield from refused()


def _counted(outcome: ItemResult[Result], progress: Progress | None) -> ItemResult[Result]:
    if progress:
        progress(1)
    return outcome
