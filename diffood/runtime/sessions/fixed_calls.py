"""Calls of a fixed number of rows, divided among threads: what all engines have in common. No engine."""

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.runtime.sessions import StageTensors

RunCall = Callable[[StageTensors], StageTensors]


class FixedCalls:
    """A loaded graph whose rows are computed by calls of a fixed size.

    The size is fixed since engines may round differently in calls of 1, 2 or 4 rows: so an image has the same score in
    any company. The last call is filled up with zeros.
    """

    def __init__(self, call: RunCall, inputs: Collection[str], rows: int, threads: int = 1) -> None:
        """Args: one call; names of what it takes; its rows; threads that make calls, the caller's among them."""
        self._call, self._inputs, self.rows, self._helpers = call, inputs, rows, threads - 1
        self._pool = ThreadPoolExecutor(self._helpers) if self._helpers else None

    def run(self, feeds: StageTensors) -> StageTensors:
        """The outputs for any number of rows; feeds that the graph does not take are left out."""
        asked = {name: value for name, value in feeds.items() if name in self._inputs}
        count = len(next(iter(asked.values())))
        calls = max(1, -(-count // self.rows))  # one for no rows, which tells the shapes of outputs
        todo = deque(range(calls))
        found: list[Any] = [None] * calls

        def work() -> None:
            while True:
                try:
                    call = todo.popleft()
                except IndexError:
                    return
                rows = slice(call * self.rows, (call + 1) * self.rows)
                found[call] = self._call({name: _filled_up(value[rows], self.rows) for name, value in asked.items()})

        others = [self._pool.submit(work) for _ in range(min(self._helpers, calls - 1))] if self._pool else []
        try:
            work()
        finally:
            todo.clear()
            wait(others)  # also if the first failed: no call may run on after this returns
        for other in others:
            other.result()
        return {name: np.concatenate([outputs[name] for outputs in found])[:count] for name in found[0]}


def _filled_up(value: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Values [rows, ...] that begin with the given ones and end with zeros."""
    if len(value) == rows:
        return value
    return np.concatenate([value, np.zeros((rows - len(value), *value.shape[1:]), value.dtype)])
