"""Tells images, the labels next to them and hidden files apart by their names. Reads nothing."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Thing = TypeVar("Thing")

IMAGE_ENDINGS = (
    *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm"),
    *(".ppm", ".tif", ".tiff", ".webp"),
)
LABEL_ENDINGS = (
    *(".caption", ".cbor", ".class", ".cls", ".cls2", ".count", ".csv", ".id", ".index", ".inx", ".jsn", ".json"),
    *(".mp", ".msg", ".npy", ".npz", ".pickle", ".pkl", ".pth", ".pyd", ".tb", ".ten", ".text", ".transcript", ".txt"),
    *(".xml", ".xmp", ".yaml", ".yml"),
)
"""What WebDataset's decoders, Pascal VOC, YOLO, LabelMe and cameras put next to an image of the same name."""
MOST_REMEMBERED = 100_000
"""Names of images that are remembered where files come in any order; some 15 MB."""
MOST_WAITING = 10_000
MOST_WAITING_BYTES = 16 * 2**20
"""Labels may come before their image, and their bytes with them; those beyond have rows of their own."""


@dataclass
class LeftOut:
    """Counts of files that have no row, on purpose; another thread may read them.

    Attributes:
        labels: Labels of images that have rows.
        hidden: Hidden files and folders.
    """

    labels: int = 0
    hidden: int = 0

    def describe(self) -> str:
        """A clause such as "3 labels of images, 1 hidden file"; "" where nothing was left out."""
        counts = ((self.labels, "label", "labels of images"), (self.hidden, "hidden file", "hidden files"))
        return ", ".join(f"{count} {many if count > 1 else one}" for count, one, many in counts if count)


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return _ending(name) in IMAGE_ENDINGS


def is_label_name(name: str) -> bool:
    """Whether a file's name ends like that of a label next to an image."""
    return _ending(name) in LABEL_ENDINGS


def is_hidden_name(name: str) -> bool:
    """Whether a file, or a folder above it, is hidden: its name begins with a dot."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def without_labels(
    named: Iterable[tuple[str, Thing]],
    left_out: LeftOut,
    *,
    in_order: bool = False,
    held: Callable[[Thing], int] = lambda thing: 0,
) -> Iterator[Thing]:
    """The things without labels of images; lazily, an image without looking further.

    A label is a file whose name ends like one's, and is up to its first dot that of an image. One whose image has not
    come yet waits, and one without an image comes last.

    Args:
        named: The name of a file and what stands for it. What has the name "" goes through at once, after those that
            wait.
        left_out: Counts the labels.
        in_order: Whether names come sorted; then the order is kept and just one name is remembered.
        held: Bytes of memory that a thing holds.
    """
    images, waiting = _Names(1 if in_order else MOST_REMEMBERED), _Waiting[Thing](held)
    for name, thing in named:
        key, ending = _sample(name), _ending(name)
        if not name or (in_order and key not in waiting):
            yield from waiting.take_all()
        if ending in LABEL_ENDINGS:
            if key in images:
                left_out.labels += 1
            else:
                yield from waiting.add(key, thing)
            continue
        if ending in IMAGE_ENDINGS:
            images.add(key)
            left_out.labels += len(waiting.take(key))
        elif in_order:
            yield from waiting.take_all()
        yield thing
    yield from waiting.take_all()


class _Names:
    """The names added last, so many."""

    def __init__(self, most: int) -> None:
        self._most, self._names = most, dict[str, None]()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str) -> None:
        self._names[name] = None
        if len(self._names) > self._most:
            del self._names[next(iter(self._names))]


class _Waiting(Generic[Thing]):
    """Labels whose image has not come yet, within limits of number and memory."""

    def __init__(self, held: Callable[[Thing], int]) -> None:
        self._held, self._by_key = held, dict[str, list[Thing]]()
        self._count = self._bytes = 0

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def add(self, key: str, thing: Thing) -> list[Thing]:
        """Keep a label; returns those that have waited longest and for which there is no room."""
        self._by_key.setdefault(key, []).append(thing)
        self._count, self._bytes = self._count + 1, self._bytes + self._held(thing)
        out = list[Thing]()
        while self._count > MOST_WAITING or self._bytes > MOST_WAITING_BYTES:
            out += self.take(next(iter(self._by_key)))
        return out

    def take(self, key: str) -> list[Thing]:
        """The labels of a key, which no longer wait."""
        found = self._by_key.pop(key, [])
        self._count, self._bytes = self._count - len(found), self._bytes - sum(map(self._held, found))
        return found

    def take_all(self) -> list[Thing]:
        """All labels, in the order of their keys' first ones, none of which waits any longer."""
        return [thing for key in list(self._by_key) for thing in self.take(key)]


def _ending(name: str) -> str:
    return os.path.splitext(name.rpartition("/")[2])[1].lower()  # noqa: PTH122 - names of members are no paths


def _sample(name: str) -> str:
    """The name up to the first dot of its last part, which WebDataset calls the key of a sample."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]
