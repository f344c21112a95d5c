"""Reads and decodes ahead of the engine, in order: in threads, or in processes that may crash, hang or be killed."""

import os
import pickle
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from diffood.errors import DiffoodError
from diffood.runtime.child import (
    INVALID,
    Child,
    ChildEnded,
    ChildNotStarted,
    ChildSilent,
    parse_fields,
    start_patiently,
)
from diffood.runtime.images.decode import DecodedImage, ImageLimits, ImageShape
from diffood.runtime.inputs.decode_worker import DecodeTask
from diffood.runtime.inputs.items import PAUSE, Item, Pause
from diffood.runtime.sessions.cores import usable_cores

THREADS = 2  # where no processes are used; Pillow releases the lock while it decodes
GROUP = 8  # items per message: the pipe then costs little even for tiny images
MOST_PROCESSES = 64
DEFAULT_MOST = 4  # some 40 MB each; four decode more small images than an edge device's engine scores
DEFAULT_SECONDS = 20.0
LONGEST_HEADER = 2**16  # bytes: a digest, a note and a reason, which are short

MOST_HELD = 128 * 2**20
"""Limit of bytes that items ahead may keep in memory, as those of a compressed shard do."""

Decode = Callable[[Sequence[Item]], list[DecodedImage]]


@dataclass(frozen=True)
class DecodeOptions:
    """How items are decoded.

    Attributes:
        processes: Number of child processes; 0: threads of this process.
        seconds: Limit for one image, in child processes only.
    """

    processes: int = 0
    seconds: float = DEFAULT_SECONDS


IN_THREADS = DecodeOptions()


def default_processes() -> int:
    """One less than the usable cores, between 1 and 4; 0 on systems without POSIX processes."""
    if os.name != "posix":
        return 0
    return max(1, min(DEFAULT_MOST, usable_cores() - 1))


def decode_ahead(
    items: Iterable[Item | Pause],
    shape: ImageShape,
    limits: ImageLimits,
    window: int,
    decoding: DecodeOptions = IN_THREADS,
) -> Generator[tuple[Item, DecodedImage] | Pause, None, None]:
    """Decode about `window` items ahead, in order. All items before a pause are given before it."""
    parallel, group = (decoding.processes, GROUP) if decoding.processes else (THREADS, 1)
    window = max(window, 2 * parallel * group)
    # The processes are ended before the threads are awaited, which may wait for them.
    with ThreadPoolExecutor(parallel) as pool, _decoder(shape, limits, decoding) as decode:
        ahead: deque[tuple[list[Item], Future[list[DecodedImage]]]] = deque()
        held: list[Item] = []
        weight = 0  # bytes that the items held and ahead hold

        def submit() -> None:
            if held:
                ahead.append((held.copy(), pool.submit(decode, held.copy())))
                held.clear()

        def oldest() -> Iterator[tuple[Item, DecodedImage]]:
            nonlocal weight
            group, future = ahead.popleft()
            weight -= sum(item.held for item in group)
            return zip(group, future.result(), strict=True)

        for item in items:
            pause = isinstance(item, Pause)
            if not isinstance(item, Pause):
                held.append(item)
                weight += item.held
            full = pause or weight > MOST_HELD
            if full or len(held) == group:
                submit()
            while ahead and (pause or weight > MOST_HELD or len(ahead) * group > window):
                yield from oldest()
            if pause:
                yield PAUSE
        submit()
        while ahead:
            yield from oldest()


@contextmanager
def _decoder(shape: ImageShape, limits: ImageLimits, decoding: DecodeOptions) -> Iterator[Decode]:
    if not decoding.processes:
        yield lambda items: [item.load(shape, limits) for item in items]
        return
    processes = _DecoderPool(DecodeTask(shape, limits, decoding.seconds), decoding.processes)
    try:
        yield processes.decode
    finally:
        processes.close()


class _DecoderPool:
    """Processes that decode groups of items, each used by one thread at a time and started by it."""

    def __init__(self, task: DecodeTask, count: int) -> None:
        self._task = task
        self._closed, self._lock = threading.Event(), threading.Lock()
        self._all: set[Child] = set()
        self._idle: queue.SimpleQueue[Child | None] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(None)

    def decode(self, items: Sequence[Item]) -> list[DecodedImage]:
        """Decode each item.

        One that ends its process or silences it is tried once more, alone: another item may have been the cause, or
        something outside, as a process that was stopped or killed for memory.
        """
        child, answers, suspect = self._idle.get(), list[DecodedImage](), False
        try:
            while len(answers) < len(items):
                rest = items[len(answers) :]
                child = child or self._start()
                try:
                    for answer in self._ask(child, rest[:1] if suspect else rest):
                        answers.append(answer)
                        suspect = False
                except (ChildSilent, ChildEnded) as end:
                    self._end(child)
                    child = None
                    if suspect:
                        answers.append(_refused(self._describe(end)))
                    suspect = not suspect
        finally:
            self._idle.put(child)
        return answers

    def _describe(self, end: ChildSilent | ChildEnded) -> str:
        if isinstance(end, ChildSilent):
            return f"took longer than {self._task.seconds:g} s to read and decode, twice"
        return f"ended the process that decoded it, twice ({end})"

    def close(self) -> None:
        """End all processes; threads that wait for one then end too."""
        with self._lock:
            self._closed.set()
            running = list(self._all)
        for child in running:
            child.kill()

    def _ask(self, child: Child, items: Sequence[Item]) -> Iterator[DecodedImage]:
        """Answers one by one, so that the item at which a process ended is known."""
        shape, seconds = self._task.shape, self._task.seconds
        size = shape.channels * shape.height * shape.width
        child.send(pickle.dumps(list(items)))
        for _ in items:
            header, _, pixels = child.receive(LONGEST_HEADER + size, seconds).partition(b"\n")
            fields = parse_fields(header)
            if fields.keys() != {"sha256", "note", "error"}:
                raise ChildEnded(INVALID)
            loaded = DecodedImage(None, **{name: str(text) for name, text in fields.items()})
            if len(pixels) != (0 if loaded.error else size):
                raise ChildEnded(INVALID)
            if loaded.error:
                yield loaded
                continue
            array = np.frombuffer(pixels, np.uint8).reshape(shape.channels, shape.height, shape.width)
            yield DecodedImage(array, loaded.sha256, loaded.note)

    def _start(self) -> Child:
        """A process that is up. Raises DiffoodError if none starts, ChildEnded once the pool is closed."""
        try:
            return start_patiently(self._start_once, self._closed.wait)
        except ChildNotStarted as failure:
            raise DiffoodError(
                f"A process that reads images did not start ({failure}); look above for the reason, free some memory, "
                "or use --decoders 0."
            ) from None

    def _start_once(self) -> Child:
        with self._lock:
            if self._closed.is_set():
                raise ChildEnded("the run ends")
            child = Child("diffood.runtime.inputs.decode_worker", self._task.as_json())
            self._all.add(child)
        try:
            child.wait_until_up()
        except ChildNotStarted:
            self._end(child)
            raise
        return child

    def _end(self, child: Child) -> None:
        child.kill()
        with self._lock:
            self._all.discard(child)


def _refused(what: str) -> DecodedImage:
    return DecodedImage(None, "", error=f"The image {what}; save it again as PNG or JPEG, or scale it down.")
