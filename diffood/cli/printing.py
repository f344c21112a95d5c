"""The only place that prints. What acts on a terminal is escaped, whatever names and messages a line holds."""

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, TextIO, TypeVar

from diffood.runtime.printable import escape_for_terminal


class _AsJson(Protocol):
    def as_json(self) -> Any:
        """Plain values."""


Result = TypeVar("Result", bound=_AsJson)


def print_lines(*lines: str) -> None:
    """Print results on standard output; a line break in a line is escaped too, since a name may hold one."""
    _print(lines, sys.stdout)


def print_messages(*lines: str) -> None:
    """As `print_lines`, for people, on standard error."""
    _print(lines, sys.stderr)


def print_result(result: Result, describe: Callable[[Result], Iterable[str]], as_json: bool) -> None:
    """Print what a verb found: in lines, or with --json as one object for machines."""
    print_lines(*([json.dumps(result.as_json())] if as_json else describe(result)))


def _print(lines: Iterable[str], stream: TextIO) -> None:
    for line in lines:
        print(escape_for_terminal(line), file=stream)
    stream.flush()


class LogPrinter(logging.Handler):
    """Prints log records on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record."""
        print_messages(record.getMessage())


def print_what_python_says() -> None:
    """Take over what Python prints by itself: warnings, errors that nobody expected, and logs of libraries."""

    def print_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
    ) -> None:
        print_messages(f"{filename}:{lineno}: {category.__name__}: {message}")

    def print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        print_messages(*"".join(traceback.format_exception(kind, error, trace)).rstrip("\n").split("\n"))

    warnings.showwarning, sys.excepthook = print_warning, print_error
    logging.lastResort = LogPrinter(logging.WARNING)
