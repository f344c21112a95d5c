"""What a format of rows provides. A new format is one file here with a subclass, and its line in `registry`.

Everything else follows from these methods: the choices of --format, the endings of --output, reading rows back, and
files that survive a kill. The same rows always give the same bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, ClassVar

from diffood.serving.rows.row import Row


class RowFormat(ABC):
    """A file format of rows; subclass `LineFormat` or `TableFormat`.

    Attributes:
        name: The choice of --format and, after a dot, the ending of files.
    """

    name: ClassVar[str]

    def require(self) -> None:
        """Raise MissingExtraError where a library is missing; called before the work begins."""
        return

    @abstractmethod
    def encode(self, rows: Sequence[Row]) -> bytes:
        """A complete file of these rows."""

    @abstractmethod
    def merge(self, parts: Iterable[bytes], file: RawIOBase) -> None:
        """Write the rows of all parts, each a complete file, into one file; one part in memory at a time."""

    def read(self, path: Path) -> Iterator[Row]:
        """Rows of a file in order. Raises UsageError with the file and line that is invalid."""
        with path.open("rb") as file:
            yield from self.read_file(file, path)

    @abstractmethod
    def read_file(self, file: BinaryIO, path: Path) -> Iterator[Row]:
        """As `read`, from the open file of this path; rows come through `check_row`."""


class LineFormat(RowFormat):
    """A format to which rows are appended one at a time."""

    @property
    def header(self) -> bytes:
        """Bytes before the first row."""
        return b""

    @abstractmethod
    def encode_row(self, row: Row) -> bytes:
        """One row with its end of line."""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """See RowFormat.encode."""
        return self.header + b"".join(map(self.encode_row, rows))

    def merge(self, parts: Iterable[bytes], file: RawIOBase) -> None:
        """See RowFormat.merge."""
        file.write(self.header)
        for part in parts:
            file.write(part[len(self.header) :])


class TableFormat(RowFormat):
    """A format that is only written whole: parts are written first and merged into the file at the end."""
