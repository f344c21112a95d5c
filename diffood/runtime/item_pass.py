"""Passes items through work on arrays: decodes ahead, keeps the order, sets refused items aside, bounds memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from diffood.runtime.images.decode import DEFAULT_LIMITS, DecodedImage, ImageLimits, ImageShape
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.inputs.decoding import IN_THREADS, MOST_HELD, DecodeOptions, decode_ahead
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.progress import Progress

REFUSED_HELD = 1000  # consecutive refused items after which their results are given; some kilobytes each

Result = TypeVar("Result")
ItemWork = Callable[[Iterable[tuple[Item, Pixels]]], Iterator[tuple[Item, Result]]]


@dataclass(frozen=True)
class ItemResult(Generic[Result]):
    """What became of one item; `result` is None if it was refused, and `loaded.error` says why."""

    source: Item
    loaded: DecodedImage
    result: Result | None


def pass_turns(
    work: ItemWork[Result],
    sources: Iterable[Item | Pause],
    shape: ImageShape,
    window: int,
    limits: ImageLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    decoding: DecodeOptions = IN_THREADS,
) -> Iterator[list[ItemResult[Result]]]:
    """What `work` makes of each item, lazily and in the order of `sources`, those of refused items among them.

    Results that are there at the same time come together. All results before a pause are given before it.

    Args:
        work: Gives a result for each (key, pixels uint8 [C, H, W]), lazily and in their order.
        sources: The items.
        shape: Of the pixels.
        window: Items to decode ahead.
        limits: Of one image.
        progress: Called with the number of items done since the last call.
        decoding: In threads or processes.
    """
    waiting: deque[tuple[Item, DecodedImage]] = deque()  # in order; those before the next result were refused
    decoded = decode_ahead(sources, shape, limits, window, decoding)
    more, held = True, 0  # held: bytes that the waiting items keep in memory
    pending = 0  # items that `work` has taken and not given a result for

    def accepted() -> Iterator[tuple[Item, Pixels]]:
        """Feed the detector; ends early after many refused or heavy items, which must not fill memory.

        It ends at a pause, too: a partial batch must not wait for the next item.
        """
        nonlocal more, held, pending
        refused_in_a_row = 0
        for pair in decoded:
            if isinstance(pair, Pause):
                return
            source, loaded = pair
            waiting.append((source, loaded))
            held += source.held
            refused_in_a_row = 0 if loaded.pixels is not None else refused_in_a_row + 1
            if loaded.pixels is not None:
                pending += 1
                yield source, loaded.pixels
            if refused_in_a_row == REFUSED_HELD or held > MOST_HELD:
                return
        more = False

    def oldest(result: Result | None) -> ItemResult[Result]:
        nonlocal held
        source, loaded = waiting.popleft()
        held -= source.held
        return _counted(ItemResult(source, loaded, result), progress)

    def refused() -> Iterator[ItemResult[Result]]:
        while waiting and waiting[0][1].pixels is None:
            yield oldest(None)

    with closing(decoded):  # ends its processes at once if the pass ends early
        while more:
            found: list[ItemResult[Result]] = []
            for _, result in work(accepted()):
                found += [*refused(), oldest(result)]
                pending -= 1
                if not pending:
                    yield found
                    found = []
            if found := [*found, *refused()]:
                yield found


def _counted(outcome: ItemResult[Result], progress: Progress | None) -> ItemResult[Result]:
    if progress:
        progress(1)
    return outcome
