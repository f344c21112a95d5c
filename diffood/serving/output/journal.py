"""The journal of a run: whose rows these are, and how far they are on the disk for good. Locked while it is open.

A line is appended and synced after what it speaks of was. So a crash, or a disk that is full, leaves a journal that
says less than there is, never more; a last line that is torn is none.
"""

import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.bundle.bundle import Sha256
from diffood.runtime.bundle.calibration import Fingerprint
from diffood.runtime.bundle.durable import sync, write_all
from diffood.runtime.records import Record, explain_invalid
from diffood.runtime.sessions.cores import usable_cores
from diffood.serving.rows.formats import Format

Count = Annotated[int, Field(ge=0)]


class RunRecord(Record):
    """All that rows and the files they are in depend on, the inputs apart. Two runs of one record go on as one.

    batch and threads: of the engine, whose last bits depend on them; a GPU has no threads. save_flagged: the folder of
    flagged images.
    """

    format: Literal[1] = 1
    diffood: str
    fingerprint: Fingerprint
    calibration_sha256: Sha256
    batch: int
    threads: int
    max_bytes: int
    max_pixels: int
    decode_timeout: float
    image_column: str
    id_column: str
    rows: Format
    part_rows: Annotated[int, Field(ge=1)]
    save_flagged: str | None = None

    def difference(self, other: "RunRecord") -> str:
        """Name what differs, with both values; "" where nothing does."""
        found = [self.fingerprint.difference(other.fingerprint)]
        for name in type(self).model_fields:
            mine, theirs = (record._threads if name == "threads" else getattr(record, name) for record in (self, other))
            if name != "fingerprint" and mine != theirs:
                found.append(f"{name.replace('_', ' ')}: {str(mine)[:80]} there, {str(theirs)[:80]} here")
        return "; ".join(filter(None, found))

    @property
    def _threads(self) -> int:
        """Threads behind the rows. Records were written with what was asked for: 0 for all cores, any for a GPU."""
        return (self.threads or usable_cores()) if self.fingerprint.backend == "onnxruntime-cpu" else 0


class Mark(Record):
    """A point that outlives a crash: `rows` rows are in `bytes` bytes of that hash, of part number `part`.

    sealed: the part is a file of its own, and the next one is begun.
    """

    part: Count
    rows: Count
    bytes: Count
    sha256: Sha256
    sealed: bool = False


class _Begun(Record):
    run: RunRecord


class _Finished(Record):
    finished: Literal[True]


@dataclass
class Past:
    """What a journal holds. sealed: a mark a part, in order; open: the last one of the part that is being written."""

    run: RunRecord | None = None
    sealed: list[Mark] = field(default_factory=list)
    open: Mark | None = None
    finished: bool = False

    @property
    def rows(self) -> int:
        """Rows that are on the disk for good."""
        return sum(mark.rows for mark in self.sealed) + (self.open.rows if self.open else 0)


class Journal:
    """An open journal. Raises UsageError where another run has it open: the lock goes with the process that held it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(path.stat(), os.fstat(self._descriptor)):
                    return
            except BlockingIOError:
                os.close(self._descriptor)
                raise UsageError(
                    f"Another run is writing there (it holds {path}): wait for it, or choose another --output."
                ) from None
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)  # the run that held it ended meanwhile and removed it

    def read(self) -> Past:
        """What it says; a torn last line is cut off. DiffoodError where it is damaged."""
        past, end = Past(), 0
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    break
                with explain_invalid(f"{self.path}, line {number}", "start anew with --overwrite", DiffoodError):
                    _take(past, text, number)
                end += len(text)
        if end != os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, end)
        return past

    def begin(self, run: RunRecord) -> None:
        """Empty it and write whose rows follow."""
        os.ftruncate(self._descriptor, 0)
        self._append(_Begun(run=run))
        sync(self.path.parent)

    def add(self, mark: Mark) -> None:
        """Append one mark."""
        self._append(mark)

    def finish(self) -> None:
        """Append that all rows are there."""
        self._append(_Finished(finished=True))

    def remove(self) -> None:
        """Remove the file; the lock is held until `close`."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._descriptor)

    def _append(self, record: Record) -> None:
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            write_all(self._descriptor, record.model_dump_json().encode() + b"\n")
            os.fsync(self._descriptor)
        except OSError:  # the disk is full: a part of a line must not stand before a later one
            os.ftruncate(self._descriptor, end)
            raise


def _take(past: Past, text: bytes, number: int) -> None:
    if number == 1:
        past.run = _Begun.model_validate_json(text).run
        return
    if text.startswith(b'{"finished"'):
        past.finished = _Finished.model_validate_json(text).finished
        return
    mark = Mark.model_validate_json(text)
    if mark.part != len(past.sealed):
        raise ValueError(f"part {mark.part} where {len(past.sealed)} belongs")
    if mark.sealed:
        past.sealed.append(mark)
        past.open = None
    else:
        past.open = mark
