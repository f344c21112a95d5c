"""Goes on where the engine finds no memory: with half the rows, from the first image that has no result."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from diffood.errors import EngineMemoryError

Key = TypeVar("Key")
Given = TypeVar("Given")
Found = TypeVar("Found")
Stream = Callable[[Iterable[tuple[Key, Given]]], Iterator[tuple[Key, Found]]]


def stream_sparing(
    stream: Stream[Key, Given, Found], halve: Callable[[], bool], items: Iterable[tuple[Key, Given]]
) -> Iterator[tuple[Key, Found]]:
    """What `stream` gives of the items, in their order; where it raises EngineMemoryError, `halve` and begin again.

    Only with the items that have no result: those are kept, some batches. Raises what `stream` raised where `halve`
    says that there is nothing to halve.
    """
    without_result: deque[tuple[Key, Given]] = deque()

    def feed() -> Iterator[tuple[Key, Given]]:
        for item in items:
            without_result.append(item)
            yield item

    fresh = feed()
    while True:
        failure: str | None = None
        try:
            for key, found in stream(itertools.chain(tuple(without_result), fresh)):
                without_result.popleft()
                yield key, found
        except EngineMemoryError as error:
            failure = str(error)  # and not the error itself, which holds the frames that hold the session
        if failure is None:
            return
        if not halve():
            raise EngineMemoryError(failure)
