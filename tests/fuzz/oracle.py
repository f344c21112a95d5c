"""What may come of hostile bytes: the work is done, or refused by an error of ours on one short line. Nothing else."""

import os
import resource
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from diffood.errors import DiffoodError
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import Item, Pause, RefusedItem
from diffood.runtime.records import is_control_character

LONGEST_MESSAGE = 6000  # characters; the longest names what differs between two fingerprints
MOST_BYTES = 2 * 2**30  # of memory that one input may cost
LIMITS = ImageLimits(max_bytes=2**20, max_pixels=10**6)
MOST_ITEMS = 20_000  # of one input


class Scratch:
    """A temporary folder of this process, in memory where there is such a file system; gone with the process."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None)
        self.path = Path(self._folder.name)

    def file(self, name: str, data: bytes) -> Path:
        """Write a file; returns its path."""
        path = self.path / name
        path.write_bytes(data)
        return path


def require_message(text: str) -> None:
    """Fail unless a text is one line that acts on no terminal, and is not endless."""
    wrong = [letter for letter in text if is_control_character(letter)]
    if wrong or len(text) > LONGEST_MESSAGE:
        raise AssertionError(f"{len(text)} characters, control characters {wrong[:10]}: {text[:500]!r}")


def attempt(work: Callable[[], object]) -> bool:
    """Whether the work was done; any error but ours passes through."""
    try:
        work()
    except DiffoodError as error:
        require_message(str(error))
        return False
    return True


def require_items(items: Iterable[Item | Pause]) -> None:
    """Read every item; ids must be text that rows can have, and refusals a message. There is an end."""
    for number, item in enumerate(items):
        assert number < MOST_ITEMS, "no end of items"
        if isinstance(item, Pause):
            continue
        item.id.encode()
        if isinstance(item, RefusedItem):
            require_message(item.reason)
        attempt(lambda item=item: item.read(LIMITS))


def peak_bytes() -> int:
    """Most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
