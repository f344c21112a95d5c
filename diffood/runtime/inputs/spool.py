"""Keeps the bytes of images in a temporary file, so that a list of items whose bytes came with them stays small."""

import tempfile
import threading
from dataclasses import dataclass
from typing import Any

from diffood.errors import DiffoodError
from diffood.runtime.images.decode import ImageLimits, refuse_byte_count
from diffood.runtime.inputs.items import InlineItem, StoredItem


class Spool:
    """One temporary file without a name: it is gone with the last item that refers to it, or with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the last reference
        self._size = 0
        self._lock = threading.Lock()

    def keep(self, item: InlineItem) -> "SpooledItem":
        """The same item with its bytes on the disk. Raises DiffoodError where the disk is full."""
        try:
            with self._lock:
                self._file.seek(self._size)
                self._file.write(item.data)
                self._file.flush()
        except OSError as error:
            raise DiffoodError(
                f"The images of {item.place} cannot be kept in a temporary file ({error.strerror}); free some space, "
                "or set TMPDIR."
            ) from None
        kept = SpooledItem(item.id, item.where, self, self._size, len(item.data))
        self._size += len(item.data)
        return kept

    def read(self, offset: int, size: int) -> bytes:
        """Bytes that were kept; threads may call it."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


@dataclass(frozen=True)
class SpooledItem(StoredItem):
    """An item of a spool. Pickled it is an `InlineItem`, so that another process can read it."""

    where: str
    spool: Spool
    offset: int
    size: int

    @property
    def place(self) -> str:
        """The shard or table and the number within it."""
        return self.where

    def read(self, limits: ImageLimits) -> bytes:
        """The bytes. Raises RejectedImage if there are none, or too many."""
        refuse_byte_count(self.size, limits)
        return self.spool.read(self.offset, self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return InlineItem, (self.id, self.where, self.spool.read(self.offset, self.size))
