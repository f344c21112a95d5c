"""Reads the directory of a zip file, which is not trusted, within a limit: Python keeps 15 times its bytes."""

import zipfile
from typing import BinaryIO, cast


class _Limited:
    """A file as zipfile may read it: no directory above the limit."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._limit = file, limit
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, count: int = -1) -> bytes:
        if count > self._limit:
            raise zipfile.BadZipFile(f"a directory of {count} bytes where at most {self._limit} are allowed")
        return self._file.read(count if count >= 0 else self._limit)


def list_entries(file: BinaryIO, limit: int) -> list[zipfile.ZipInfo]:
    """The entries of a zip, whose directory has at most `limit` bytes. Raises BadZipFile, and what zipfile raises."""
    with zipfile.ZipFile(cast(BinaryIO, _Limited(file, limit))) as archive:
        return archive.infolist()
