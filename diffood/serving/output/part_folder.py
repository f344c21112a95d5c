"""A folder of parts of equal size. It is the output itself, or is merged into one file at the end.

The rows of the part that is being written are kept as JSON Lines, and in memory, until the part is complete. A complete
part that something else damaged is a hole: its rows are the first that are written, in memory, until it is complete.
"""

import contextlib
import hashlib
import io
import itertools
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.bundle.durable import sync
from diffood.runtime.method.discoveries import select_batch
from diffood.serving.output.base import Output, OutputMode
from diffood.serving.output.journal import Checkpoint, Journal, RunRecord
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.line_file import LineFile
from diffood.serving.output.rereading import (
    FileState,
    HashedFile,
    changed_since_written,
    read_content,
    read_state,
    require_same,
    write_file,
)
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
        self._states: dict[int, FileState] = {}  # of the complete parts
        self._holes: deque[int] = deque()  # complete parts that are to be made again
        self._again: list[Row] = []  # of the first of them

    @property
    def next_row(self) -> int:
        """See Output.next_row."""
        before = self._content.sealed[: self._holes[0]] if self._holes else self._content.sealed
        return sum(checkpoint.rows for checkpoint in before) + len(self._again if self._holes else self._rows)

    def done(self) -> Iterator[Row | None]:
        """See Output.done."""
        holes, open_rows = frozenset(self._holes), tuple(self._rows)
        for checkpoint in tuple(self._content.sealed):
            if checkpoint.part in holes:
                yield from itertools.repeat(None, checkpoint.rows)
            else:
                yield from self._rows_of(checkpoint)
        yield from open_rows

    def _read_part(self, number: int) -> bytes:
        """The bytes of a complete part, which are those that were written."""
        path = self.layout.part(number)
        with contextlib.suppress(OSError):
            data, state = read_content(path)
            if state == self._states[number]:
                return data
        raise changed_since_written(path)

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
        self._find_holes()
        sealed, open_checkpoints = self._content.sealed, self._content.open
        self._number = len(sealed)
        open_part = self.layout.open_part(self._number)
        kept = {self.layout.part(number) for number in self._states} | ({open_part} if open_checkpoints else set())
        for path in list_parts(self._folder):
            if path not in kept:
                path.unlink()
        if open_checkpoints:
            self._file = LineFile(open_part, JSON_LINES, open_checkpoints)
            self._rows = list(self._file.read())
        self._sealed = sum(sealed[number].rows for number in self._states)
        self._safe = self._sealed + len(self._rows)

    def _find_holes(self) -> None:
        """Read all complete parts; those that are not as they were written are holes."""
        self._states, self._holes = {}, deque()
        for number, checkpoint in enumerate(self._content.sealed):
            try:
                state = read_state(self.layout.part(number))
            except OSError:
                state = None
            if state and (state.sha256 == checkpoint.sha256 or self._is_selected(number, checkpoint)):
                self._states[number] = state
            else:
                self._holes.append(number)

    def _is_selected(self, number: int, checkpoint: Checkpoint) -> bool:
        """Whether a part is the one of the checkpoint but for `selected`: a kill came before the journal knew."""
        if self.run.fdr is None:
            return False
        path = self.layout.part(number)
        try:
            rows = list(self.layout.format.read_file(io.BytesIO(read_content(path)[0]), path))
        except (OSError, UsageError):
            return False
        before = self.layout.format.encode([replace(row, selected=None) for row in rows])
        return hashlib.sha256(before).hexdigest() == checkpoint.sha256

    def _finish_again(self) -> bool:
        self._find_holes()
        if self._holes:
            return False
        self._complete(self._assemble())
        return True

    def _write(self, row: Row) -> None:
        if self._holes:
            self._again.append(row)
            if len(self._again) == self._content.sealed[self._holes[0]].rows:
                self._fill_hole()
            return
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
        self._add_checkpoint(self._write_part(self._number, self._rows))
        self._file.close()
        self._file.path.unlink()
        self._file, self._rows, self._number = None, [], self._number + 1

    def _fill_hole(self) -> None:
        """Write a part that was damaged again."""
        checkpoint = self._write_part(self._holes[0], self._again)
        self._record_again(checkpoint)
        self._sealed += checkpoint.rows
        self._safe += checkpoint.rows
        self._holes.popleft()
        self._again = []

    def select(self, fdr: float) -> int:
        """See Output.select."""
        with self._changing():
            self._complete_parts()
            p_values = [np.inf if row is None or row.p_value is None else row.p_value for row in self.done()]
            scored = np.isfinite(p_values)
            selected = np.zeros(len(p_values), np.bool_)
            selected[scored] = select_batch(np.array(p_values)[scored], fdr)
            start = 0
            for number, checkpoint in enumerate(tuple(self._content.sealed)):
                rows = self._rows_of(checkpoint)
                values = zip(rows, selected[start : start + len(rows)].tolist(), strict=True)
                decided = [replace(row, selected=None if row.p_value is None else value) for row, value in values]
                self._record_again(self._write_part(number, decided))
                start += len(rows)
        return int(selected.sum())

    def _rows_of(self, checkpoint: Checkpoint) -> list[Row]:
        file = io.BytesIO(self._read_part(checkpoint.part))
        return list(self.layout.format.read_file(file, self.layout.part(checkpoint.part)))

    def _record_again(self, checkpoint: Checkpoint) -> None:
        """Tell the journal that a complete part was written again."""
        assert self._journal
        self._journal.add(checkpoint)
        self._content.add(checkpoint)

    def _write_part(self, number: int, rows: list[Row]) -> Checkpoint:
        state = write_file(self.layout.part(number), self.layout.format.encode(rows))
        self._states[number] = state
        return Checkpoint(part=number, rows=len(rows), bytes=state.bytes, sha256=state.sha256, sealed=True)

    def _make_checkpoint(self) -> None:
        if self._file and self._sealed + self._file.rows > self._safe:
            self._add_checkpoint(self._file.checkpoint(self._number))

    def _reread(self) -> None:
        for number, state in self._states.items():
            require_same(self.layout.part(number), state)
        if self._file:
            require_same(self._file.path, self._file.state)

    def _write_last(self) -> FileState | None:
        self._complete_parts()
        return self._assemble()

    def _complete_parts(self) -> None:
        while self._holes:  # of live inputs that are gone
            self._fill_hole()
        if self._rows:
            self._seal()

    def _assemble(self) -> FileState | None:
        """Read all parts again, and merge them if one file is wanted."""
        if self.layout.is_dataset:
            self._reread()
            self._require_no_others()
            return None
        return self._merge()

    def _require_no_others(self) -> None:
        """Raise DiffoodError if readers of the folder would find more than the parts."""
        own = {self.layout.part(number).name for number in self._states}
        for path in sorted(self._folder.iterdir()):
            if path.name not in own and not path.name.startswith(("_", ".")):
                raise DiffoodError(
                    f"{path} was put there by something else, and readers of the folder take it for rows. Move it away "
                    "and finish with --resume."
                )

    def _merge(self) -> FileState:
        merged = self._folder / MERGED
        with HashedFile(merged) as file:
            self.layout.format.merge(map(self._read_part, sorted(self._states)), file)
            state = file.state
        require_same(merged, state)
        return state

    def _complete(self, whole: FileState | None) -> None:
        if whole is None:
            return
        assert self._journal
        (self._folder / MERGED).replace(self.layout.path)
        sync(self.layout.path.parent)
        self._require_renamed(whole)
        self._journal.remove()  # from here on the folder is no longer needed
        shutil.rmtree(self._folder, ignore_errors=True)
