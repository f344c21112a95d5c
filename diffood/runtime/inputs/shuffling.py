"""Puts items into an order that depends on their ids alone and on nothing that the ids tell."""

import hashlib
from collections.abc import Iterable, Iterator

from diffood.runtime.inputs.items import InlineItem, Item, Pause
from diffood.runtime.inputs.spool import Spool


def shuffled(items: Iterable[Item | Pause]) -> Iterator[Item]:
    """All items by the SHA-256 of their ids: the same order on every run, whatever order they come in.

    Bytes that come with a listing are kept in a temporary file. Raises DiffoodError where it cannot grow.
    """
    spool = Spool()
    kept = [spool.keep(item) if isinstance(item, InlineItem) else item for item in items if not isinstance(item, Pause)]
    yield from sorted(kept, key=lambda item: (hashlib.sha256(item.id.encode()).digest(), item.id))
