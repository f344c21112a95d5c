"""A log for machines: one line of JSON per event, with its time (UTC), level and fields."""

import contextlib
import json
import os
import stat
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Literal

from typing_extensions import Self

from diffood.errors import UsageError
from diffood.runtime.bundle.durable import write_all
from diffood.runtime.printable import escape_json
from diffood.serving.rows.row import CellValue, Row

Level = Literal["info", "warning", "error"]


class EventLog:
    """A file to which events are appended; a context manager.

    A log that can no longer be written, as on a full disk, does not end the run.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises UsageError if it cannot be opened, or is not a regular file of one name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would block for ever
        try:
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            reason = "it is a link" if path.is_symlink() else error.strerror
            raise UsageError(f"--log {path} cannot be written ({reason}); choose another file.") from None
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(self._descriptor)
            kind = "is not a regular file" if not stat.S_ISREG(found.st_mode) else "has another name, by a hard link"
            raise UsageError(f"--log {path} {kind}; choose another file.")

    def event(self, name: str, level: Level = "info", **fields: CellValue) -> None:
        """Append one event."""
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        text = json.dumps({"time": time, "level": level, "event": name, **fields}, ensure_ascii=False)
        with contextlib.suppress(OSError):
            write_all(self._descriptor, escape_json(text).encode() + b"\n")

    def row(self, row: Row) -> None:
        """Append an event if someone may want to look at the row: refused, invalid or flagged."""
        if row.status != "ok":
            self.event(row.status, "warning", id=row.id, error=row.error)
        elif row.is_ood:
            self.event("flagged", id=row.id, score=row.score, p_value=row.p_value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
