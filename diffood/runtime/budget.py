"""Limits on what a library takes for a graph or a file of unknown origin, which it does not have itself: time, memory.

The operators of a bundle's graphs are judged before (bundle/operators.py), and how large their tensors become is not
always known then: sizes may be computed, and constants multiplied while a graph is loaded.

A limit of memory is the whole process's. So it is set only in a process of diffood's own, the command line's, and only
while something is opened or first runs; in a Python program, whose memory is not ours to limit, there is none.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from diffood.errors import BundleError, EngineMemoryError

Result = TypeVar("Result")

LOAD_SECONDS = 20.0
LOAD_BYTES_PER_SECOND = 2**24
"""A graph may compute so long to load, and a second more for so many bytes: a Raspberry Pi lays out the weights of a
UNet of 140 MB in some seconds."""
MEMORY = 3 * 2**29  # with what Python and its libraries have, below 2 GiB
COPIES = 4  # of the weights: the file, what the parser makes of it, the tensors, and those laid out for a processor
PER_THREAD = 2**26  # a stack, and what an allocator sets aside
FEATURE_MAPS = 500  # of the size of an image that may be alive in a call
_LONGEST_WAIT = 1.0
_DATA = 5  # position in statm of the pages that are the process's own

_own_process = threading.Event()
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """While inside, this process is diffood's own, so that its memory may be limited for moments."""
    _own_process.set()
    try:
        yield
    finally:
        _own_process.clear()


def memory_budget(weights: int, threads: int = 1, call: int = 0) -> int:
    """Bytes that loading and calling a graph may take, beyond those in use.

    Args:
        weights: Bytes of the graph with its weights.
        threads: That make calls.
        call: Bytes of the images of a call, in float32.
    """
    return MEMORY + COPIES * weights + threads * (PER_THREAD + FEATURE_MAPS * call)


@contextlib.contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Let this process have at most so many bytes beyond what it has, if it is our own; on Linux alone.

    Raises EngineMemoryError where that is too little.
    """
    if not _own_process.is_set():
        yield
        return
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text("ascii").split()[_DATA]) * resource.getpagesize()
    except (ImportError, OSError, IndexError, ValueError):
        yield
        return
    with _one_at_a_time:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limits = [limit for limit in (soft, hard, used + more) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
        try:
            yield
        except (EngineMemoryError, MemoryError) as error:
            raise EngineMemoryError(
                f"{str(error) or 'Out of memory.'} It may take {more // 2**20} MiB, more than such a model needs."
            ) from None
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


class _LoadCall(Generic[Result]):
    """A call in a thread of its own, the time that thread computed, and what the call came to."""

    def __init__(self, call: Callable[[], Result]) -> None:
        self._call, self._results, self._errors = call, list[Result](), list[BaseException]()
        self._clock: int | None = None
        self._started = time.monotonic()
        self.thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            if hasattr(time, "pthread_getcpuclockid"):
                self._clock = time.pthread_getcpuclockid(threading.get_ident())
            self._results.append(self._call())
        except BaseException as error:
            self._errors.append(error)

    def seconds(self) -> float:
        """What the thread computed, since a busy machine is no fault of the graph; or what passed."""
        if self._clock is not None:
            with contextlib.suppress(OSError):  # it has ended just now
                return time.clock_gettime(self._clock)
        return time.monotonic() - self._started

    def result(self) -> Result:
        for error in self._errors:
            raise error
        return self._results[0]


def load_within(call: Callable[[], Result], size: int, what: str) -> Result:
    """What `call` returns, which loads a graph of `size` bytes; signals are handled meanwhile.

    A library cannot be stopped: a load that is given up ends with the process. Raises BundleError, which names `what`.
    """
    limit = LOAD_SECONDS + size / LOAD_BYTES_PER_SECOND
    with limited_memory(memory_budget(size)):
        loading = _LoadCall(call)
        while loading.thread.is_alive():
            if (left := limit - loading.seconds()) <= 0:
                raise BundleError(
                    f"{what} takes more than {limit:.0f} s of computing to load, longer than any graph of its size "
                    "should: do not use it, export it again from its models."
                )
            loading.thread.join(min(left, _LONGEST_WAIT))
        return loading.result()
