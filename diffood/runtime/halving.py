"""Continues with half the batch when the engine runs out of memory, from the first image without a result."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from diffood.errors import EngineMemoryError

Key = TypeVar("Key")
Given = TypeVar("Given")
Found = TypeVar("Found")
Stream = Callable[[Iterable[tuple[Key, Given]]], Iterator[tuple[Key, Found]]]


def stream_halving(
    stream: Stream[Key, Given, Found], halve: Callable[[], bool], items: Iterable[tuple[Key, Given]]
) -> Iterator[tuple[Key, Found]]:
    """The results of `stream`, in order; when it raises EngineMemoryError, call `halve` and stream again.

    Only items without a result are streamed again; they are kept, some batches at most. Raises what `stream` raised
    if `halve` says that there is nothing to halve.
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
            failure = str(error)  # not the error itself: its frames keep the session alive
        if failure is None:
            return
        if not halve():
            raise EngineMemoryError(failure)
