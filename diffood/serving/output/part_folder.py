"""A folder of parts of equal size. It is the output itself, or is merged into one file at the end.

The rows of the part that is being written are kept as JSON Lines, and in memory, until the part is complete.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator

from diffood.runtime.bundle.durable import sync, write_durably
from diffood.serving.output.base import Output, OutputMode
from diffood.serving.output.journal import Checkpoint, Journal, RunRecord
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.line_file import LineFile, changed_since_written
from diffood.serving.rows.formats.base import TableFormat
from diffood.serving.rows.formats.registry import JSON_LINES
from diffood.serving.rows.parts import SUMMARY, list_parts
from diffood.serving.rows.row import Row

MERGED = "merged"


class PartFolder(Output):
    """An output in parts."""

    def __init__(self, layout: OutputLayout, run: RunRecord, mode: OutputMode) -> None:
        super().__init__(layout, run, mode)
        assert layout.folder
        self._folder, self._number = layout.folder, 0
        self._rows: list[Row] = []  # of the part that is being written

    def done(self) -> Iterator[Row]:
        """See Output.done."""
        for checkpoint in self._found.sealed:
            path = self.layout.part(checkpoint.part)
            try:
                same = hashlib.sha256(path.read_bytes()).hexdigest() == checkpoint.sha256
            except FileNotFoundError:
                same = False
            if not same:
                raise changed_since_written(path)
            yield from self.layout.format.read(path)
        yield from tuple(self._rows)

    def _clear(self) -> None:
        others = (self._folder / MERGED, self._folder / SUMMARY)
        for path in (*list_parts(self._folder), *self._folder.glob(".*.tmp"), *others):
            path.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        if not self._folder.exists():
            return
        with contextlib.suppress(FileNotFoundError):  # the run that finished is removing it just now
            self._journal = Journal(self.layout.journal)  # so that no other run begins there meanwhile
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        return  # the first row opens the first part

    def _restore(self) -> None:
        self._number, checkpoint = len(self._found.sealed), self._found.open
        kept = {self.layout.part(number) for number in range(self._number)}
        open_part = self.layout.open_part(self._number)
        for path in list_parts(self._folder):
            if path not in kept and not (path == open_part and checkpoint):
                path.unlink()
        if checkpoint:
            self._file = LineFile(open_part, JSON_LINES, checkpoint)
            self._rows = list(JSON_LINES.read(open_part))

    def _write(self, row: Row) -> None:
        if len(self._rows) == self.run.part_rows:  # sealing it failed, as on a full disk, and the run was resumed
            self._seal()
        if self._file is None:
            self._file = LineFile(self.layout.open_part(self._number), JSON_LINES)
        self._file.write(row)
        self._rows.append(row)
        if len(self._rows) == self.run.part_rows:
            self._seal()

    def _seal(self) -> None:
        """Write the part under its own name in the output's format."""
        assert self._file
        data = self.layout.format.encode(self._rows)
        write_durably(self.layout.part(self._number), data)
        digest = hashlib.sha256(data).hexdigest()
        self._add_checkpoint(
            Checkpoint(part=self._number, rows=len(self._rows), bytes=len(data), sha256=digest, sealed=True)
        )
        self._file.close()
        self._file.path.unlink()
        self._file, self._rows, self._number = None, [], self._number + 1

    def _make_checkpoint(self) -> None:
        if self._file and self._sealed + self._file.rows > self._safe:
            self._add_checkpoint(self._file.checkpoint(self._number))

    def _write_last(self) -> None:
        if self._rows:
            self._seal()

    def _complete(self) -> None:
        if self.layout.is_dataset:
            return
        assert self._journal
        assert isinstance(self.layout.format, TableFormat)
        merged = self._folder / MERGED
        parts = [self.layout.part(checkpoint.part) for checkpoint in self._journal.read().sealed]
        self.layout.format.merge(parts, merged)
        sync(merged)
        merged.replace(self.layout.path)
        sync(self.layout.path.parent)
        self._journal.remove()  # from here on the folder is no longer needed
        shutil.rmtree(self._folder, ignore_errors=True)
