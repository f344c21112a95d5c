"""Reads and decodes ahead of the engine, in order: in threads, or in processes that may crash, hang or be killed."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffood.runtime.images.decode import DecodedImage, ImageLimits, ImageShape
from diffood.runtime.inputs.decode_worker import DecodeTask
from diffood.runtime.inputs.fetch_worker import FetchTask
from diffood.runtime.inputs.items import PAUSE, InlineItem, Item, Pause, RefusedItem
from diffood.runtime.inputs.processes import ProcessPool, Work
from diffood.runtime.inputs.remote import RemoteFile
from diffood.runtime.sessions.cores import usable_cores

THREADS = 2  # where no processes are used; Pillow releases the lock while it decodes
GROUP = 8  # items per message: the pipe then costs little even for tiny images
MOST_PROCESSES = 64
DEFAULT_MOST = 4  # some 40 MB each; four decode more small images than an edge device's engine scores
DEFAULT_SECONDS = 20.0
MOST_SENT = 2**20  # bytes of images in a message, unless a single one is larger

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
    decoders = ProcessPool(_decoding(shape, limits, decoding.seconds), decoding.processes)
    fetchers = ProcessPool(_fetching(limits, decoding.seconds), decoding.processes)

    def decode(items: Sequence[Item]) -> list[DecodedImage]:
        found: list[DecodedImage] = []
        for message in _messages(items, lambda item: _fetch(item, limits, fetchers)):
            found += decoders.answers(message)
        return found

    try:
        yield decode
    finally:
        decoders.close()
        fetchers.close()


def _fetch(item: Item, limits: ImageLimits, fetchers: ProcessPool[tuple[bytes, str]]) -> Item:
    """The item with its bytes: files are read here, URLs by processes that may be stopped."""
    if not isinstance(item, RemoteFile):
        return item.fetched(limits)
    [(data, error)] = fetchers.answers([item])
    return RefusedItem(item.id, item.place, error) if error else InlineItem(item.id, item.place, data)


def _messages(items: Sequence[Item], fetch: Callable[[Item], Item]) -> Iterator[list[Item]]:
    """The items with their bytes, as many in a message as are small."""
    message: list[Item] = []
    size = 0
    for item in map(fetch, items):
        if message and size + item.held > MOST_SENT:
            yield message
            message, size = [], 0
        message.append(item)
        size += item.held
    if message:
        yield message


def _decoding(shape: ImageShape, limits: ImageLimits, seconds: float) -> Work[DecodedImage]:
    size = shape.channels * shape.height * shape.width

    def answer(header: dict[str, Any], pixels: bytes) -> DecodedImage | None:
        if header.keys() != {"sha256", "note", "error"}:
            return None
        loaded = DecodedImage(None, **{name: str(text) for name, text in header.items()})
        if len(pixels) != (0 if loaded.error else size):
            return None
        if loaded.error:
            return loaded
        array = np.frombuffer(pixels, np.uint8).reshape(shape.channels, shape.height, shape.width)
        return DecodedImage(array, loaded.sha256, loaded.note)

    def refused(what: str) -> DecodedImage:
        return DecodedImage(None, "", error=f"The image {what}; save it again as PNG or JPEG, or scale it down.")

    task = DecodeTask(shape, limits, seconds).as_json()
    return Work("diffood.runtime.inputs.decode_worker", task, None, "decoded", seconds, size, answer, refused)


def _fetching(limits: ImageLimits, seconds: float) -> Work[tuple[bytes, str]]:
    def answer(header: dict[str, Any], data: bytes) -> tuple[bytes, str] | None:
        if header.keys() != {"error"} or len(data) > limits.max_bytes:
            return None
        return data, str(header["error"])

    def refused(what: str) -> tuple[bytes, str]:
        return b"", f"The image {what}; check the connection, or raise --decode-timeout."

    task = FetchTask(limits, seconds).as_json()
    environment = dict(os.environ)  # it may have the keys of a store
    most = limits.max_bytes
    return Work("diffood.runtime.inputs.fetch_worker", task, environment, "fetched", seconds, most, answer, refused)
