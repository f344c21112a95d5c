"""The output of a run that survives being killed: rows in, and after any end the rows so far, each of them once.

One file of lines is NAME.partial until it is whole. A folder of parts has its rows in parts of equal size, and those
of the next part as JSON lines until it is full; one Parquet file is merged from such parts at the end. The journal says
what is on the disk for good; `--resume` cuts back to that and goes on, so that the files are the same to the byte.
"""

import contextlib
import hashlib
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

from typing_extensions import Self

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.bundle.durable import sync, write_durably
from diffood.serving.output.growing import Growing, damaged
from diffood.serving.output.journal import Journal, Mark, Past, RunRecord
from diffood.serving.output.place import Place
from diffood.serving.output.summary import read_summary
from diffood.serving.rows.formats import LineFormat, merge_parquet, whole
from diffood.serving.rows.parts import SUMMARY, own_files
from diffood.serving.rows.readers import read_growing, read_rows
from diffood.serving.rows.row import Row

Mode = Literal["new", "resume", "overwrite"]

SECONDS_BETWEEN_MARKS = 5.0  # a kill costs at most this much work
MERGED = "merged"


def open_output(place: Place, run: RunRecord, mode: Mode = "new") -> "Output":
    """The output at a place, to be entered."""
    return _Parts(place, run, mode) if place.folder else _OneFile(place, run, mode)


class Output(ABC):
    """A context manager: enter it, pass over `done`, `write` the rows after those, `finish`.

    Left without `finish`, the rows so far stay for a resume. Entering raises UsageError where another run writes
    there, an unfinished one is there and mode is "new", or what is there is of another run; DiffoodError where the
    place cannot be written or was changed by others.
    """

    def __init__(self, place: Place, run: RunRecord, mode: Mode) -> None:
        self.place, self.run, self._mode = place, run, mode
        self.finished = False
        self._journal: Journal | None = None
        self._past = Past()
        self._file: Growing | None = None
        self._made: Path | None = None  # the folder of parts, where this run made it
        self._sealed = self._marked = 0  # rows in parts that are whole, and all that are on the disk for good
        self._last_mark, self._torn = time.monotonic(), False

    @property
    def resumed(self) -> int:
        """Rows from before."""
        return self._past.rows

    @property
    def unfinished(self) -> bool:
        """Whether there are rows that a resume would go on from."""
        return self._marked > 0 and not self.finished

    def __enter__(self) -> Self:
        try:
            self._enter()
        except OSError as error:
            self._close()
            raise self._refusal(error) from None
        except BaseException:
            self._close()
            raise
        return self

    def _enter(self) -> None:
        self._require_place()
        if self._mode == "resume" and not self.place.journal.exists() and self.place.path.is_file():
            self._require_own(read_summary(self.place.summary, self.place.path).run)
            self.finished = True
            return
        if self.place.folder and not self.place.folder.exists():
            self._made = self.place.folder
        self.place.journal.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(self.place.journal)
        self._past = self._journal.read() if self._mode != "overwrite" else Past()
        if self._mode == "new" and (self._past.rows or self._past.finished):
            raise UsageError(self._occupied())
        if self._past.run is None or not (self._past.rows or self._past.finished):
            self._past = Past(self.run)
            self._journal.begin(self.run)  # first: a journal must not speak of what is gone
            self._clear()
            self._start()
            return
        self._require_own(self._past.run)
        self._marked, self._sealed = self._past.rows, sum(mark.rows for mark in self._past.sealed)
        if self._past.finished:
            self._complete()
            self.finished = True
        else:
            self._restore()

    def _require_own(self, there: RunRecord) -> None:
        if difference := there.difference(self.run):
            raise UsageError(
                f"{self.place.path} cannot be resumed, as its rows would be of two kinds: {difference}. Resume with "
                "what it was begun with, or give another --output."
            )

    def _require_place(self) -> None:
        path, folder = self.place.path, self.place.folder
        if self.place.is_dataset:
            if path.is_dir() and not self.place.journal.exists() and any(path.iterdir()):
                raise UsageError(f"{path} holds other files; give --output a new folder.")
        elif path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        elif folder and (folder.is_symlink() or (folder.exists() and not folder.is_dir())):
            folder.unlink()  # left by a version that wrote one file

    def _occupied(self) -> str:
        if self._past.finished and self.place.is_dataset:
            return (
                f"{self.place.path} holds the {self._past.rows} rows of a finished run: give another --output, or "
                "--overwrite to replace them."
            )
        return (
            f"{self.place.path} was begun by a run that did not finish ({self._past.rows} rows): go on with --resume, "
            "or start anew with --overwrite."
        )

    def write(self, row: Row) -> None:
        """Append one row. Raises DiffoodError where the disk is full or gone; the rows before it stay."""
        with self._changing():
            self._write(row)
            if time.monotonic() - self._last_mark >= SECONDS_BETWEEN_MARKS:
                self._mark()

    def finish(self, summary: bytes) -> None:
        """Say that these were all rows: the output appears under its name, the summary beside it."""
        assert self._journal
        with self._changing():
            self._last()
            write_durably(self.place.summary, summary)
            self._journal.finish()
            self._complete()
            self.finished = True

    def stop(self, summary: bytes) -> None:
        """Say that the run was ended before its end: what there is is on the disk, the summary beside it."""
        if self._torn:
            return
        with self._changing():
            self._mark()
            if self.unfinished:
                write_durably(self.place.summary, summary)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """A change of several steps. Broken off by a signal between two of them, it is left to the next resume."""
        self._torn = True
        try:
            yield
        except OSError as error:
            self._torn = False  # what failed left everything as it was before it
            raise self._refusal(error) from None
        self._torn = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._journal and not self.finished and not self._torn:
                self._mark()
        except OSError as failure:  # what was marked before stands
            if kind is None:
                raise self._refusal(failure) from None
        finally:
            with contextlib.suppress(OSError):  # an empty beginning that stays is none to the next run
                if self._journal and not self.finished and not self._marked:
                    self._clear()
                    self._journal.remove()
                    if self._made:
                        self._made.rmdir()
            self._close()

    def _close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
        if self._journal:
            self._journal.close()
            self._journal = None

    def _add(self, mark: Mark) -> None:
        assert self._journal
        self._journal.add(mark)
        self._marked, self._last_mark = self._sealed + mark.rows, time.monotonic()
        if mark.sealed:
            self._sealed = self._marked

    def _refusal(self, error: OSError) -> DiffoodError:
        reason = error.strerror or error
        if self.unfinished:
            return DiffoodError(
                f"Cannot write {self.place.path} ({reason}). {self._marked} rows are safe: free some space and go on "
                "with --resume."
            )
        return DiffoodError(f"Cannot write {self.place.path} ({reason}); choose another --output.")

    @abstractmethod
    def done(self) -> Iterator[Row]:
        """The rows there are from before, in order. Raises DiffoodError where they are not as they were written."""

    @abstractmethod
    def _clear(self) -> None:
        """Remove what an earlier run left unfinished."""

    @abstractmethod
    def _start(self) -> None:
        """Begin without rows."""

    @abstractmethod
    def _restore(self) -> None:
        """Cut everything back to the journal's last mark."""

    @abstractmethod
    def _write(self, row: Row) -> None: ...

    @abstractmethod
    def _mark(self) -> None:
        """Have all rows so far on the disk for good."""

    @abstractmethod
    def _last(self) -> None:
        """As `_mark`, after the last row."""

    @abstractmethod
    def _complete(self) -> None:
        """Give the output its name. All of it may have been done before, or a part."""


class _OneFile(Output):
    """JSON lines or CSV."""

    @property
    def _kind(self) -> LineFormat:
        return "csv" if self.place.rows == "csv" else "jsonl"

    def done(self) -> Iterator[Row]:
        if self._past.rows:
            for block in read_growing(self.place.partial, self._kind):
                yield from block

    def _clear(self) -> None:
        self.place.partial.unlink(missing_ok=True)

    def _start(self) -> None:
        self._file = Growing(self.place.partial, self._kind)

    def _restore(self) -> None:
        self._file = Growing(self.place.partial, self._kind, self._past.open)

    def _write(self, row: Row) -> None:
        assert self._file
        self._file.write(row)
        if self._file.rows % self.run.part_rows == 0:
            self._mark()

    def _mark(self) -> None:
        if self._file and self._file.rows > self._marked:
            self._add(self._file.mark(0))

    def _last(self) -> None:
        assert self._file
        self._mark()
        self._file.mark(0)  # a file without rows is one too

    def _complete(self) -> None:
        assert self._journal
        if self.place.partial.exists():
            self.place.partial.replace(self.place.path)
        sync(self.place.path.parent)
        self._journal.remove()


class _Parts(Output):
    """A folder of parts, which stays or is merged into one Parquet file."""

    def __init__(self, place: Place, run: RunRecord, mode: Mode) -> None:
        super().__init__(place, run, mode)
        assert place.folder
        self._folder, self._number = place.folder, 0
        self._held: list[Row] = []  # the rows of the part that is being written

    def done(self) -> Iterator[Row]:
        for mark in self._past.sealed:
            path = self.place.part(mark.part)
            try:
                same = hashlib.sha256(path.read_bytes()).hexdigest() == mark.sha256
            except FileNotFoundError:
                same = False
            if not same:
                raise damaged(path)
            for block in read_rows(path):
                yield from block
        yield from tuple(self._held)

    def _clear(self) -> None:
        others = (self._folder / MERGED, self._folder / SUMMARY)
        for path in (*own_files(self._folder), *self._folder.glob(".*.tmp"), *others):
            path.unlink(missing_ok=True)

    def _start(self) -> None:
        pass  # the first row opens the first part

    def _restore(self) -> None:
        self._number, mark = len(self._past.sealed), self._past.open
        kept = {self.place.part(number) for number in range(self._number)}
        open_part = self.place.open_part(self._number)
        for path in own_files(self._folder):
            if path not in kept and not (path == open_part and mark):
                path.unlink()
        if mark:
            self._file = Growing(open_part, "jsonl", mark)
            self._held = [row for block in read_growing(open_part, "jsonl") for row in block]

    def _write(self, row: Row) -> None:
        if len(self._held) == self.run.part_rows:  # its sealing failed, as on a full disk, and the run was resumed
            self._seal()
        if self._file is None:
            self._file = Growing(self.place.open_part(self._number), "jsonl")
        self._file.write(row)
        self._held.append(row)
        if len(self._held) == self.run.part_rows:
            self._seal()

    def _seal(self) -> None:
        assert self._file
        data = whole(self._held, self.place.rows)
        write_durably(self.place.part(self._number), data)
        digest = hashlib.sha256(data).hexdigest()
        self._add(Mark(part=self._number, rows=len(self._held), bytes=len(data), sha256=digest, sealed=True))
        self._file.close()
        self._file.path.unlink()
        self._file, self._held, self._number = None, [], self._number + 1

    def _mark(self) -> None:
        if self._file and self._sealed + self._file.rows > self._marked:
            self._add(self._file.mark(self._number))

    def _last(self) -> None:
        if self._held:
            self._seal()

    def _complete(self) -> None:
        if self.place.is_dataset:
            return
        assert self._journal
        merged = self._folder / MERGED
        merge_parquet([self.place.part(mark.part) for mark in self._journal.read().sealed], merged)
        sync(merged)
        merged.replace(self.place.path)
        sync(self.place.path.parent)
        self._journal.remove()  # from here on the rest is litter
        shutil.rmtree(self._folder, ignore_errors=True)
