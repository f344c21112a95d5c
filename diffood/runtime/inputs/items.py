"""An item: an id and where its bytes are. Small and picklable, so that another process reads the bytes itself."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import DecodedImage, ImageLimits, ImageShape, error_text, read_and_decode, read_file

LONGEST_ID = 4096
"""Characters; Linux's PATH_MAX. Names inside archives and tables may be longer, and a row is read by people."""


@dataclass(frozen=True, order=True)
class Item(ABC):
    """One image to score. id: valid UTF-8 text, its name in the rows."""

    id: str

    @property
    @abstractmethod
    def place(self) -> str:
        """Where its bytes are; two items of one id and one place are the same image."""

    @abstractmethod
    def read(self, limits: ImageLimits) -> bytes:
        """The bytes of its image file; RejectedImage where there are none or too many."""

    @property
    def held(self) -> int:
        """Bytes of the image that are in memory with the item."""
        return 0


@dataclass(frozen=True, order=True)
class LocalFile(Item):
    """A file. id: the path relative to the folder given; path: where to read it."""

    path: Path

    @property
    def place(self) -> str:
        """The absolute path; links are not followed."""
        return utf8_name(os.path.abspath(self.path))  # noqa: PTH100 - Path's follows links

    def read(self, limits: ImageLimits) -> bytes:
        """The bytes of the file, as `read_file` takes them."""
        return read_file(self.path, limits)


@dataclass(frozen=True)
class Pause:
    """Stands among items where the next one may be long in coming: what is there is scored meanwhile."""


PAUSE = Pause()


@dataclass(frozen=True)
class InlineItem(Item):
    """An image whose bytes came with the listing, since its shard or table can only be read from its beginning."""

    where: str
    data: bytes

    @property
    def place(self) -> str:
        """The shard or table and the number within it."""
        return self.where

    def read(self, limits: ImageLimits) -> bytes:
        """The bytes at hand; `decode` refuses what is empty or too large."""
        return self.data

    @property
    def held(self) -> int:
        """All of them."""
        return len(self.data)


@dataclass(frozen=True)
class RefusedItem(Item):
    """What was named and cannot be used: a row with the reason."""

    where: str
    reason: str

    @property
    def place(self) -> str:
        """What the reason is about."""
        return self.where

    def read(self, limits: ImageLimits) -> bytes:
        """Raise the reason."""
        raise RejectedImage(self.reason)


def load_item(item: Item, shape: ImageShape, limits: ImageLimits) -> DecodedImage:
    """Read and decode one item; a refusal is returned, not raised."""
    return read_and_decode(lambda: item.read(limits), shape, limits)


def utf8_name(name: str) -> str:
    r"""The name as valid UTF-8: bytes that are not become \xNN and \ becomes \\, so that two names never meet."""
    return os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def describe_error(error: BaseException) -> str:
    """An error of a library as a short piece of a reason: its class and printable message."""
    return f"{type(error).__name__}: {error_text(error)}".rstrip(": ")
