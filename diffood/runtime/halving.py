"""Opens an engine with half the batch, a quarter, and so on where memory does not suffice for all."""

import gc
from collections.abc import Callable
from typing import TypeVar

from diffood.errors import BundleError, EngineMemoryError

Opened = TypeVar("Opened")


def open_halving(open_with: Callable[[int], Opened], batch: int) -> Opened:
    """What `open_with` returns for a batch, or for the first half, quarter, and so on that fits into memory.

    Raises EngineMemoryError if one image does not fit, or no engine was built for so few.
    """
    failure = ""
    while True:
        try:
            return open_with(batch)
        except EngineMemoryError as error:
            failure = str(error)  # not the error itself: its frames keep buffers alive
        except BundleError as error:
            if failure:
                raise EngineMemoryError(f"{failure} Fewer are not possible: {error}") from None
            raise
        if batch == 1:
            raise EngineMemoryError(failure)
        gc.collect()
        batch //= 2
