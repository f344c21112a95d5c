"""SIGINT (Ctrl-C) and SIGTERM: the first ends a run in good order, the second ends the process at once.

What ends a process when:

    first signal       Python's handler: a `Stop` is requested, or KeyboardInterrupt raised; Python calls it between
                       two of its own instructions, so after the native call under way
    the same again     the kernel's default action, which the first one restored; only glibc offers that
    any second signal  a thread ends the process, which hears of signals while the main thread is in a native call
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

from diffood.errors import SIGNAL_EXIT

Item = TypeVar("Item")
Handler = Callable[[int, FrameType | None], None]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_TO_NOTICE = 1.0  # most verbs end sooner
NOTICE = b"stopping    in good order; a second signal ends it at once\n"


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

    def check(self) -> None:
        """Raise KeyboardInterrupt if the run is to end."""
        if self.requested:
            raise KeyboardInterrupt

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
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self.event.set()


@contextlib.contextmanager
def handle_signals(stop: Stop) -> Iterator[None]:
    """Let the signals request the stop while inside; does nothing outside the main thread, which alone may do so.

    A second one raises KeyboardInterrupt, or ends the process inside `ending_at_second_signal`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        _set_handler(number, stop._handle, once=isinstance(getattr(handler, "__self__", None), HeardSignals))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class HeardSignals:
    """What came while a process could be ended by signals.

    Attributes:
        first: The first signal; known after the end of `ending_at_second_signal`.
        interrupted: Whether one raised KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self.interrupted = False

    @property
    def exit_code(self) -> int:
        """The shell's exit code for the first signal."""
        return SIGNAL_EXIT + (self.first or signal.SIGINT)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        raise KeyboardInterrupt

    def _end_at_second(self, heard: socket.socket) -> None:
        """End the process when a second signal is heard; say so where the first one takes long."""
        with heard:
            while True:
                try:
                    data = heard.recv(1)
                except TimeoutError:
                    heard.settimeout(None)
                    _notify()
                    continue
                if not data:
                    return
                if data[0] not in SIGNALS:
                    continue
                if self.first:
                    os._exit(SIGNAL_EXIT + data[0])
                self.first = signal.Signals(data[0])
                heard.settimeout(SECONDS_TO_NOTICE)


@contextlib.contextmanager
def ending_at_second_signal() -> Iterator[HeardSignals]:
    """While inside, a signal raises KeyboardInterrupt, and a second one ends the process, whatever it does.

    A signal that is ignored from the start, as SIGINT is in background jobs of scripts, stays so. Does nothing outside
    the main thread.
    """
    signals = HeardSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    heard, told = socket.socketpair()
    told.setblocking(False)
    fd_before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=signals._end_at_second, args=(heard,), name="signals", daemon=True)
    listener.start()
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        _set_handler(number, signals._interrupt, once=True)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(fd_before)
        told.close()
        listener.join()
        for number, handler in before.items():  # after a first signal, the next ends what Python does at its exit
            signal.signal(number, signal.SIG_DFL if signals.first or handler is None else handler)


def _set_handler(number: signal.Signals, handler: Handler, *, once: bool) -> None:
    """Install a handler. once: for the first signal alone, so that the kernel ends the process at the second one."""
    signal.signal(number, handler)
    # Process 1, of a container, is never ended by default actions.
    libc = ctypes.CDLL(None) if once and sys.platform == "linux" and os.getpid() != 1 else None
    set_once = getattr(libc, "sysv_signal", None)
    if set_once is None:
        return
    set_once.argtypes, set_once.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    set_once(number, set_once(number, signal.SIG_IGN))  # which gives Python's own handler, in C
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _notify() -> None:
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:  # where a reader stands still, writing would wait for it
            os.write(2, NOTICE)
