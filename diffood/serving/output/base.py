"""The output of a run that survives being killed; what one file and a folder of parts have in common.

What happens in which order:

    enter    lock the journal; new: write the run into it, remove what an earlier run left, then start empty
                               resume: compare the run with the journal's, then every file with its checkpoints, and
                               cut it back to the last one that agrees; a complete part that differs is made again
    done     the caller reads the rows that exist, and skips as many inputs
    write    append a row; a checkpoint goes into the journal every few seconds and with every complete part
    finish   last checkpoint, every file is read again and compared, summary, "finished" into the journal, then the
             output gets its name
    exit     without finish: a last checkpoint, so that --resume continues from the last row

A kill between any two of these steps costs at most the rows since the last checkpoint, which the resume scores again
to the same bytes. After "finished" is in the journal only renaming is left, which a resume repeats.

A file's inode, size and hash are kept while it is written. `finish` returns only if each name has that file with those
bytes when it is read again: success is what is on the disk, not what was handed to it.
"""

import contextlib
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

from typing_extensions import Self

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.bundle.files import record_bytes
from diffood.serving.output.journal import Checkpoint, Journal, JournalContent, RunRecord
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.line_file import LineFile
from diffood.serving.output.rereading import (
    FileState,
    changed_since_written,
    inode_of,
    read_state,
    require_same,
    write_file,
)
from diffood.serving.output.summary import SummaryFile, read_summary
from diffood.serving.rows.row import Row

OutputMode = Literal["new", "resume", "overwrite"]

SECONDS_BETWEEN_CHECKPOINTS = 5.0  # a kill costs at most this much work


class Output(ABC):
    """A context manager: enter it, skip the inputs of `done`, `write` the rows after those, `finish`.

    Left without `finish`, the rows so far stay for a resume. Entering raises UsageError if another run writes there,
    an unfinished one is there and the mode is "new", or the rows there belong to another run; DiffoodError if the
    output cannot be written or was changed by others.

    Attributes:
        layout: Where the files are.
        run: The run whose rows are written.
        finished: Whether all rows are there, from this run or an earlier one.
        resumed: Rows from earlier runs, as they were written.
        damaged: Rows from earlier runs that something else changed or removed; they are to be made again.
    """

    def __init__(self, layout: OutputLayout, run: RunRecord, mode: OutputMode) -> None:
        self.layout, self.run, self._mode = layout, run, mode
        self.finished = False
        self._journal: Journal | None = None
        self._content = JournalContent()
        self.resumed = self.damaged = 0
        self._file: LineFile | None = None
        self._new_folder: Path | None = None  # the folder of parts, if this run made it
        self._sealed = 0  # rows in complete parts that are as they were written
        self._safe = 0  # rows on the disk, according to the journal
        self._last_checkpoint = time.monotonic()
        self._inconsistent = False  # a change of several steps was broken off

    @property
    def resumable(self) -> bool:
        """Whether there are rows from which a resume would continue."""
        return self._safe > 0 and not self.finished

    def __enter__(self) -> Self:
        try:
            self._enter()
        except OSError as error:
            self._close()
            raise self._cannot_write(error) from None
        except BaseException:
            self._close()
            raise
        return self

    def _enter(self) -> None:
        self._require_free_path()
        if self._mode == "resume" and not self.layout.journal.exists() and self.layout.path.is_file():
            self._require_finished_file()
            return
        if self.layout.folder and not self.layout.folder.exists():
            self._new_folder = self.layout.folder
        self.layout.journal.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(self.layout.journal)
        self._content = self._journal.read() if self._mode != "overwrite" else JournalContent()
        has_rows = self._content.rows > 0 or self._content.finished is not None
        if self._mode == "new" and has_rows:
            raise UsageError(self._occupied())
        if self._content.run is None or not has_rows:
            self._content = JournalContent(self.run)
            self._journal.begin(self.run)  # first: a journal must not list what is removed
            self._clear()
            self._start()
            return
        self._require_same_run(self._content.run)
        there = self._content.rows
        if self._has_summary() and self._finish_again():
            self.finished, self._safe = True, there
        else:
            self._content.finished = None
            self._restore()
        self.resumed, self.damaged = self._safe, there - self._safe

    def _has_summary(self) -> bool:
        """Whether an earlier run wrote all rows, and its summary is there; without it the rows are counted again."""
        try:
            return read_state(self.layout.summary).sha256 == self._content.finished
        except OSError:
            return False

    def _require_finished_file(self) -> None:
        """Check the file of a finished run, whose hash is in its summary."""
        summary = read_summary(self.layout.summary, self.layout.path)
        self._require_same_run(summary.run)
        try:
            same = read_state(self.layout.path).sha256 == summary.sha256
        except OSError:
            same = False
        if not same:
            raise DiffoodError(
                f"{self.layout.path} was changed by something else since it was written: it is not the file that "
                f"{self.layout.summary.name} describes. Make it again with --overwrite."
            )
        self.finished, self.resumed = True, summary.files
        self._remove_leftovers()

    def _require_same_run(self, there: RunRecord) -> None:
        if difference := there.difference(self.run):
            raise UsageError(
                f"{self.layout.path} cannot be resumed with other settings: {difference}. Use the settings of the "
                "first run, or give another --output."
            )

    def _require_free_path(self) -> None:
        path, folder = self.layout.path, self.layout.folder
        if not self.layout.is_dataset:
            self._require_same_kind()
        if self.layout.is_dataset:
            if path.is_dir() and not self.layout.journal.exists() and any(path.iterdir()):
                raise UsageError(f"{path} contains other files; give --output a new folder.")
        elif path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        elif folder and (folder.is_symlink() or (folder.exists() and not folder.is_dir())):
            folder.unlink()  # from a version that wrote one file

    def _require_same_kind(self) -> None:
        """Refuse, or remove with --overwrite, what a run with --fdr left where this has none, and the reverse."""
        partial, other = self.layout.partial, self.layout.path.with_name(f"{self.layout.path.name}.journal")
        if self.layout.folder is None and partial.is_dir() and not partial.is_symlink():
            left = "with"
        elif self.layout.folder is not None and other.exists():
            left = "without"
        else:
            return
        if self._mode != "overwrite":
            raise UsageError(
                f"{self.layout.path} has rows of a run {left} --fdr that did not finish: continue that one with "
                "--resume, or start over with --overwrite."
            )
        if self.layout.folder is None:
            shutil.rmtree(partial)
        else:
            other.unlink()

    def _occupied(self) -> str:
        if self._content.finished and self.layout.is_dataset:
            return (
                f"{self.layout.path} has the {self._content.rows} rows of a finished run: give another --output, or "
                "--overwrite to replace them."
            )
        return (
            f"{self.layout.path} has {self._content.rows} rows of a run that did not finish: continue it with "
            "--resume, or start over with --overwrite."
        )

    def write(self, row: Row) -> None:
        """Append one row. Raises DiffoodError if the disk is full or gone; the rows before it stay."""
        with self._changing():
            self._write(row)
            if time.monotonic() - self._last_checkpoint >= SECONDS_BETWEEN_CHECKPOINTS:
                self._make_checkpoint()

    def finish(self, summary: SummaryFile) -> None:
        """Declare the output complete: it appears under its name, with the summary in its own file.

        Raises DiffoodError where a file, read again, is not what was written.
        """
        assert self._journal
        with self._changing():
            whole = self._write_last()
            content = summary.model_copy(update={"sha256": whole.sha256 if whole else None})
            written = write_file(self.layout.summary, record_bytes(content))
            self._journal.finish(written.sha256)
            self._content.finished = written.sha256
            self._journal.require_content(self._content)
            self._complete(whole)
            require_same(self.layout.summary, written)
            self.finished = True

    def select(self, fdr: float) -> int:
        """Fill the column `selected` of all rows, once they are there, at this false discovery rate.

        Returns the number of rows selected. A kill at any time leaves rows that a resume selects again.
        """
        raise NotImplementedError(f"{type(self).__name__} appends rows and changes none")

    def stop(self, summary: SummaryFile) -> None:
        """Save the rows so far and the summary, for a resume. Raises DiffoodError as `finish`."""
        if self._inconsistent:
            return
        with self._changing():
            self._make_checkpoint()
            if self.resumable:
                self._reread()
                write_file(self.layout.summary, record_bytes(summary))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """A change of several steps. If a signal interrupts it between two of them, the next resume repairs it."""
        self._inconsistent = True
        try:
            yield
        except OSError as error:
            self._inconsistent = False  # a failed step leaves everything as it was before it
            raise self._cannot_write(error) from None
        self._inconsistent = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._journal and not self.finished and not self._inconsistent:
                self._make_checkpoint()
        except OSError as failure:  # earlier checkpoints stay valid
            if kind is None:
                raise self._cannot_write(failure) from None
        except DiffoodError:  # something else changed the file; an error on its way out says more
            if kind is None:
                raise
        finally:
            with contextlib.suppress(OSError):  # an empty start that cannot be removed does not hinder the next run
                if self._journal and not self.finished and not self._safe:
                    self._clear()
                    self._journal.remove()
                    if self._new_folder:
                        self._new_folder.rmdir()
            self._close()

    def _close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
        if self._journal:
            self._journal.close()
            self._journal = None

    def _add_checkpoint(self, checkpoint: Checkpoint) -> None:
        assert self._journal
        self._journal.add(checkpoint)
        self._content.add(checkpoint)
        self._safe, self._last_checkpoint = self._sealed + checkpoint.rows, time.monotonic()
        if checkpoint.sealed:
            self._sealed = self._safe

    def _cannot_write(self, error: OSError) -> DiffoodError:
        reason = error.strerror or error
        if self.resumable:
            try:
                self._reread()
                kept = f"{self._safe} rows are safe"
            except (DiffoodError, OSError):
                kept = "Rows from before were changed or removed by something else and will be made again"
            return DiffoodError(
                f"Cannot write {self.layout.path} ({reason}). {kept}: free some space and continue with --resume."
            )
        return DiffoodError(f"Cannot write {self.layout.path} ({reason}); free some space, or choose another --output.")

    @property
    @abstractmethod
    def next_row(self) -> int:
        """Number of the row that `write` takes next, from 0."""

    @abstractmethod
    def done(self) -> Iterator[Row | None]:
        """Rows from earlier runs, in order; None for one that was damaged.

        The rows in the places of None are to be written first, in order. Raises DiffoodError if a file changed since
        the output was entered.
        """

    @abstractmethod
    def _clear(self) -> None:
        """Remove what an earlier run left unfinished."""

    def _remove_leftovers(self) -> None:
        """Remove what a run left that was killed after the output had its name."""
        return

    @abstractmethod
    def _start(self) -> None:
        """Begin without rows."""

    @abstractmethod
    def _restore(self) -> None:
        """Cut all files back to the last checkpoints that agree with them, and count the rows that are left."""

    @abstractmethod
    def _finish_again(self) -> bool:
        """Do what an earlier run left to do after its last row; False if its files are not as they were written."""

    @abstractmethod
    def _write(self, row: Row) -> None:
        """Append one row."""

    @abstractmethod
    def _make_checkpoint(self) -> None:
        """Sync all rows so far to the disk and tell the journal."""

    @abstractmethod
    def _reread(self) -> None:
        """Read every file again. Raises DiffoodError if one is not what was written."""

    @abstractmethod
    def _write_last(self) -> FileState | None:
        """As `_make_checkpoint` and `_reread`, after the last row; what the output will be if it is one file."""

    @abstractmethod
    def _complete(self, whole: FileState | None) -> None:
        """Give the output its name. An interrupted run may have done all of it before, or a part."""

    def _require_renamed(self, whole: FileState) -> None:
        """Raise DiffoodError unless the file that was read again has the output's name."""
        if inode_of(self.layout.path.lstat()) != whole.inode:
            raise changed_since_written(self.layout.path)
