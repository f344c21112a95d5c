"""Ctrl-C and SIGTERM: the first ends a run after the images under way, the second ends it at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

from diffood.errors import SIGNAL_EXIT

Item = TypeVar("Item")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RETRY_SECONDS = 0.01


class Stop:
    """Whether a run was asked to end.

    Attributes:
        event: Set when it was; code that waits for inputs can wait for this too.
        signal: The signal that asked for it.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        """Whether the run is to end."""
        return self.event.is_set()

    @property
    def exit_code(self) -> int:
        """The shell's exit code for the signal."""
        return SIGNAL_EXIT + (self.signal or signal.SIGINT)

    def limit(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until the run is to end."""
        for item in items:
            if self.requested:
                return
            yield item
            if self.requested:
                return

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if not _in_finalizer(frame):
                raise KeyboardInterrupt
            threading.Timer(RETRY_SECONDS, os.kill, (os.getpid(), number)).start()
            return
        self.signal = signal.Signals(number)
        self.event.set()


def _in_finalizer(frame: FrameType | None) -> bool:
    """Whether a frame is called by __del__, out of which no exception comes."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def handle_signals(stop: Stop) -> Iterator[None]:
    """Let the signals request the stop while inside; does nothing outside the main thread, which alone may do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop._handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
