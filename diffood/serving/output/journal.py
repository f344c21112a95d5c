"""The journal of a run: which run the rows belong to, and how many of them are safely on the disk.

What happens in which order, for every checkpoint:

    1. rows are appended to their file            (a kill here loses them; the resume scores them again)
    2. the file is synced to the disk
    3. a line with the checkpoint is appended to the journal
    4. the journal is synced to the disk          (from here on a resume begins behind these rows)

So after a crash or on a full disk the journal says less than there is, never more. A torn last line counts as absent.
The file is locked while it is open, so that two runs never write to one output; a kill releases the lock.
"""

import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.backends import define
from diffood.runtime.bundle.bundle import Sha256
from diffood.runtime.bundle.calibration import Fingerprint
from diffood.runtime.bundle.durable import sync, write_all
from diffood.runtime.json_reader import parse_json
from diffood.runtime.printable import escape_json
from diffood.runtime.records import Record, Text, explain_invalid
from diffood.runtime.sessions.cores import usable_cores
from diffood.serving.rows.formats.registry import FormatName

NonNegative = Annotated[int, Field(ge=0)]


class RunRecord(Record):
    """Everything that rows and their files depend on, except the inputs. A run resumes only one with an equal record.

    Attributes:
        diffood: Version.
        bundle_digest: One hash over all files of the bundle, as `diffood inspect` prints it. Another one does not keep
            a run from being resumed: rows depend on the fingerprint, and `diffood verify` may have written meanwhile.
        batch: Images that the engine works on at once; the last bits of scores depend on it, and on `threads`.
        threads: Threads of the engine; no effect on a GPU.
        rows: Format of the rows.
        part_rows: Rows per part, and rows between checkpoints of one file.
        save_flagged: Folder of flagged images.
        fdr: False discovery rate at which rows are selected; None for none.
        threshold: Given in place of the calibrated ones.
        fpr: Asked for in place of the calibrated rate.
    """

    format: Literal[1] = 1
    diffood: str
    fingerprint: Fingerprint
    calibration_sha256: Sha256
    bundle_digest: Text | None = None
    batch: int
    threads: int
    max_bytes: int
    max_pixels: int
    decode_timeout: float
    image_column: str
    id_column: str
    rows: FormatName
    part_rows: Annotated[int, Field(ge=1)]
    save_flagged: str | None = None
    fdr: Annotated[float, Field(gt=0, lt=1)] | None = None
    threshold: float | None = None
    fpr: float | None = None

    def difference(self, other: "RunRecord") -> str:
        """Name each field that differs, with both values; "" if the records are equal."""
        found = [self.fingerprint.difference(other.fingerprint)]
        for name in type(self).model_fields:
            mine, theirs = (record._threads if name == "threads" else getattr(record, name) for record in (self, other))
            if name not in ("fingerprint", "bundle_digest") and mine != theirs:
                found.append(f"{name.replace('_', ' ')}: {str(mine)[:80]} there, {str(theirs)[:80]} here")
        return "; ".join(filter(None, found))

    @property
    def _threads(self) -> int:
        """Threads that were used. Older records hold what was asked for: 0 for all cores, anything for a GPU."""
        return (self.threads or usable_cores()) if not define(self.fingerprint.backend).gpu else 0


class Checkpoint(Record):
    """A point that survives a crash.

    Attributes:
        part: Number of the part; 0 for one file.
        rows: Rows in the part.
        bytes: Length of these rows in the file.
        sha256: Of these bytes.
        sealed: Whether the part is complete, in a file of its own.
    """

    part: NonNegative
    rows: NonNegative
    bytes: NonNegative
    sha256: Sha256
    sealed: bool = False


class _RunLine(Record):
    run: RunRecord


class _FinishedLine(Record):
    finished: Sha256


@dataclass
class JournalContent:
    """What a journal holds.

    Attributes:
        run: The run that wrote it; None for an empty journal.
        sealed: One checkpoint per complete part, in order.
        open: Checkpoints of the part that is being written, in order.
        finished: Hash of the summary, once all rows were written.
    """

    run: RunRecord | None = None
    sealed: list[Checkpoint] = field(default_factory=list)
    open: list[Checkpoint] = field(default_factory=list)
    finished: Sha256 | None = None

    @property
    def rows(self) -> int:
        """Rows that are safely on the disk."""
        return sum(checkpoint.rows for checkpoint in (*self.sealed, *self.open[-1:]))

    def add(self, checkpoint: Checkpoint) -> None:
        """Take in a checkpoint. Raises ValueError if it is invalid there.

        One of an earlier part stands for a part that was damaged and made again.
        """
        self.finished = None
        again = checkpoint.sealed and checkpoint.part < len(self.sealed)
        if again:
            self.sealed[checkpoint.part] = checkpoint
            return
        if checkpoint.part != len(self.sealed):
            raise ValueError(f"part {checkpoint.part}, expected part {len(self.sealed)}")
        if checkpoint.sealed:
            self.sealed.append(checkpoint)
            self.open.clear()
            return
        while self.open and self.open[-1].bytes >= checkpoint.bytes:  # a damaged file was cut back further
            self.open.pop()
        self.open.append(checkpoint)

    def add_line(self, text: bytes, number: int) -> None:
        """Take in line `number`, from 1. Raises ValueError if it is invalid there."""
        content = parse_json(text)
        if number == 1:
            self.run = _RunLine.model_validate(content).run
            return
        if text.startswith(b'{"finished"'):
            self.finished = _FinishedLine.model_validate(content).finished
            return
        self.add(Checkpoint.model_validate(content))


class Journal:
    """An open, locked journal."""

    def __init__(self, path: Path) -> None:
        """Open and lock the file. Raises UsageError if another run has locked it."""
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
                    f"Another run is writing there (it has locked {path}): wait for it, or choose another --output."
                ) from None
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)  # the run that had locked it ended meanwhile and removed it

    def read(self) -> JournalContent:
        """What it holds; a torn last line is cut off. Raises DiffoodError if it is damaged."""
        content, end = JournalContent(), 0
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    break
                with explain_invalid(f"{self.path}, line {number}", "start over with --overwrite", DiffoodError):
                    content.add_line(text, number)
                end += len(text)
        if end != os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, end)
        return content

    def begin(self, run: RunRecord) -> None:
        """Empty the journal and write which run follows."""
        os.ftruncate(self._descriptor, 0)
        self._append(_RunLine(run=run))
        sync(self.path.parent)

    def add(self, checkpoint: Checkpoint) -> None:
        """Append one checkpoint."""
        self._append(checkpoint)

    def finish(self, summary_sha256: Sha256) -> None:
        """Append that all rows were written, and the summary of them."""
        self._append(_FinishedLine(finished=summary_sha256))

    def require_content(self, content: JournalContent) -> None:
        """Raise DiffoodError unless the file, read again, holds this."""
        self._require_own_name()
        if self.read() != content:
            raise self._replaced()

    def remove(self) -> None:
        """Remove the file; the lock is held until `close`."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)

    def _append(self, record: Record) -> None:
        self._require_own_name()
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            write_all(self._descriptor, escape_json(record.model_dump_json()).encode() + b"\n")
            os.fsync(self._descriptor)
        except OSError:  # the disk is full: part of a line must not stay before a later one
            os.ftruncate(self._descriptor, end)
            raise

    def _require_own_name(self) -> None:
        """Raise DiffoodError if the name has another file by now: the next run would believe that one."""
        if not self.path.exists() or not os.path.samestat(self.path.lstat(), os.fstat(self._descriptor)):
            raise self._replaced()

    def _replaced(self) -> DiffoodError:
        return DiffoodError(
            f"{self.path} was changed, replaced or removed by something else while the run wrote to it; start over "
            "with --overwrite."
        )
