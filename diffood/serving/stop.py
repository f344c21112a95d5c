"""Ctrl-C and SIGTERM: the first asks a run to end after the images under way, the second ends it at once."""

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

from diffood.errors import SIGNAL_EXIT

Item = TypeVar("Item")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a run was asked to end, and by which signal. event: set when it was, for what waits for inputs."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: signal.Signals | None = None

    @property
    def wanted(self) -> bool:
        """Whether the run is to end."""
        return self.event.is_set()

    @property
    def exit_code(self) -> int:
        """What a process exits with that ends so: the shell's code for the signal."""
        return SIGNAL_EXIT + (self.signal or signal.SIGINT)

    def until(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, up to where the run is to end."""
        for item in items:
            if self.wanted:
                return
            yield item
            if self.wanted:
                return

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self.event.set()


@contextlib.contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Have the signals tell `stop`, where this is the thread that may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop._handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
