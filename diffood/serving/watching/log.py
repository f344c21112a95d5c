"""A log for machines: a line of JSON an event, with its time (UTC), level and fields."""

import contextlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from diffood.errors import UsageError
from diffood.runtime.bundle.durable import write_all
from diffood.serving.rows.row import Row, Value

Level = Literal["info", "warning", "error"]


class Log:
    """A file that events are appended to; a context manager. UsageError where it cannot be opened.

    A log that cannot be written any more, as on a full disk, does not end the run.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise UsageError(f"--log {path} cannot be written ({error.strerror}); choose another.") from None

    def event(self, name: str, level: Level = "info", **fields: Value) -> None:
        """Append one event."""
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        text = json.dumps({"time": time, "level": level, "event": name, **fields}, ensure_ascii=False)
        with contextlib.suppress(OSError):
            write_all(self._descriptor, text.encode() + b"\n")

    def row(self, row: Row) -> None:
        """Tell of a row that someone may want to look at: refused, invalid or flagged."""
        if row.status != "ok":
            self.event(row.status, "warning", id=row.id, error=row.error)
        elif row.is_ood:
            self.event("flagged", id=row.id, score=row.score, p_value=row.p_value)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
