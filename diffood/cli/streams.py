"""Standard streams that may lose their reader: the run goes on, and its exit code is its own."""

import errno
import io
import os
import sys

from typing_extensions import Buffer

READER_GONE = frozenset({errno.EPIPE, errno.EIO, errno.ENXIO})
"""Of a pipe that was closed, of a terminal that hung up."""


class _Stream(io.FileIO):
    """A descriptor of this process. What nobody can read any more is dropped."""

    def __init__(self, descriptor: int, *, expendable: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._expendable = expendable

    def write(self, data: Buffer) -> int:
        """Write, or drop; a lack of space is an error where results are written."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if self._expendable or error.errno in READER_GONE:
                return memoryview(data).nbytes
            self._expendable = True  # it is told once, not again when the rest is flushed at the end
            raise


def outlast_readers() -> None:
    """Let writing to standard output and error survive the loss of their reader, and errors to be lost at all.

    A standard stream that was closed before the start is connected to nothing, since otherwise the next file to be
    opened would take its place.
    """
    if os.name != "posix":
        return
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest free number, which is this
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # not while a program that imported this one keeps its own
        sys.stdout = _wrap(1, sys.stdout, expendable=False)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrap(2, sys.stderr, expendable=True)


def _wrap(descriptor: int, before: io.TextIOBase | None, *, expendable: bool) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(_Stream(descriptor, expendable=expendable))
    encoding = getattr(before, "encoding", "utf-8")
    lines = expendable or bool(getattr(before, "line_buffering", False))
    return io.TextIOWrapper(
        buffer, encoding, "backslashreplace", line_buffering=lines
    )  # not every locale has all letters
