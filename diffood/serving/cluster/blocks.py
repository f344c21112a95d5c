"""Files are given to workers in blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diffood.runtime.inputs.items import Item, Pause
from diffood.serving.rows.row import Row

BLOCK = 256  # files; what is scored again when a worker is lost
BLOCK_BYTES = 8 * 2**20  # of images that came with their listing, after which a block ends before it is full


@dataclass
class Block:
    """Files that are scored together.

    Attributes:
        number: Place in the order of all blocks.
        rows: Each with its picture, once they are scored.
        attempts: How often a worker was lost while it scored this block.
    """

    number: int
    items: list[Item]
    rows: list[tuple[Row, bytes | None]] | None = None
    attempts: int = 0


def in_blocks(items: Iterable[Item | Pause]) -> Iterator[list[Item]]:
    """BLOCK items at a time, fewer if they are heavy or before a pause; an empty list stands for a pause."""
    held: list[Item] = []
    weight = 0
    for item in items:
        if not isinstance(item, Pause):
            held.append(item)
            weight += item.held
        if held and (isinstance(item, Pause) or len(held) == BLOCK or weight > BLOCK_BYTES):
            yield held
            held, weight = [], 0
        if isinstance(item, Pause):
            yield []
    if held:
        yield held
