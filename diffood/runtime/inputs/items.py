"""An item: an id and where its bytes are. Picklable, so that another machine or process can read or decode it."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import (
    DecodedImage,
    ImageLimits,
    ImageShape,
    error_text,
    read_and_decode,
    read_file,
    refuse_byte_count,
)
from diffood.runtime.inputs.urls import hide_secrets

LONGEST_ID = 4096
"""Characters: Linux's PATH_MAX. Names inside archives and tables may be longer, but people read rows."""


@dataclass(frozen=True, order=True)
class Item(ABC):
    """One image; `id` is its name in rows and reports, valid UTF-8."""

    id: str

    @property
    @abstractmethod
    def place(self) -> str:
        """Where its bytes are; two items with the same id and place are the same image."""

    @abstractmethod
    def read(self, limits: ImageLimits) -> bytes:
        """The bytes of its image file. Raises RejectedImage if they cannot be read or are too many."""

    def fetched(self, limits: ImageLimits) -> "Item":
        """The same image for a process that may open nothing; itself where it holds its bytes. Never raises."""
        return self

    def load(self, shape: ImageShape, limits: ImageLimits) -> DecodedImage:
        """Its pixels for a model of this shape; a refusal is returned, not raised."""
        return read_and_decode(lambda: self.read(limits), shape, limits)

    @property
    def held(self) -> int:
        """Bytes of the image that the item itself keeps in memory."""
        return 0


class StoredItem(Item):
    """An image whose bytes are in a file or on the network."""

    def fetched(self, limits: ImageLimits) -> Item:
        """An item that holds the bytes, or the reason why there are none."""
        try:
            return InlineItem(self.id, self.place, self.read(limits))
        except RejectedImage as error:
            return RefusedItem(self.id, self.place, str(error))
        except Exception as error:  # a MemoryError, or a fault of ours: one row, not the run
            return RefusedItem(
                self.id, self.place, f"The image could not be read ({describe_error(error)}); try again."
            )


@dataclass(frozen=True, order=True)
class LocalFile(StoredItem):
    """A file on this machine; `id` is its path relative to the folder that was given."""

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
    """Marks a place in a stream of items where the next one may take long: the items before it are scored first."""


PAUSE = Pause()


@dataclass(frozen=True)
class InlineItem(Item):
    """An image whose bytes came with the listing, since its container can only be read from the beginning."""

    where: str
    data: bytes

    @property
    def place(self) -> str:
        """The container and the number within it."""
        return self.where

    def read(self, limits: ImageLimits) -> bytes:
        """The bytes. Raises RejectedImage if there are none, or too many."""
        refuse_byte_count(len(self.data), limits)
        return self.data

    @property
    def held(self) -> int:
        """All its bytes."""
        return len(self.data)


@dataclass(frozen=True)
class RefusedItem(Item):
    """Something that was named and cannot be used; its row has the reason."""

    where: str
    reason: str

    @property
    def place(self) -> str:
        """What the reason is about."""
        return self.where

    def read(self, limits: ImageLimits) -> bytes:
        """Raise the reason."""
        raise RejectedImage(self.reason)


def utf8_name(name: str) -> str:
    r"""The name as valid UTF-8: other bytes become \xNN and \ becomes \\, so that names stay distinct."""
    return os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def describe_error(error: BaseException) -> str:
    """The class and message of an error, short, printable and without secrets of URLs, as a part of a reason."""
    return f"{type(error).__name__}: {hide_secrets(error_text(error))}".rstrip(": ")
