"""One file of lines, named NAME.partial until it is complete."""

import hashlib
from collections.abc import Iterator

from diffood.runtime.bundle.durable import sync
from diffood.serving.output.base import Output, OutputMode
from diffood.serving.output.journal import RunRecord
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.line_file import LineFile
from diffood.serving.output.rereading import FileState, read_state, require_same
from diffood.serving.rows.formats.base import LineFormat
from diffood.serving.rows.row import Row


class SingleFile(Output):
    """An output in a LineFormat."""

    def __init__(self, layout: OutputLayout, run: RunRecord, mode: OutputMode) -> None:
        super().__init__(layout, run, mode)
        assert isinstance(layout.format, LineFormat)
        self._format = layout.format

    @property
    def next_row(self) -> int:
        """See Output.next_row."""
        return self._file.rows if self._file else 0

    def done(self) -> Iterator[Row | None]:
        """See Output.done."""
        if self._file and self._file.rows:
            yield from self._file.read()

    def _clear(self) -> None:
        self.layout.partial.unlink(missing_ok=True)

    def _start(self) -> None:
        self._file = LineFile(self.layout.partial, self._format)

    def _restore(self) -> None:
        self._file = LineFile(self.layout.partial, self._format, self._content.open)
        self._safe = self._file.rows

    def _finish_again(self) -> bool:
        last = self._content.open
        expected = last[-1].sha256 if last else hashlib.sha256(self._format.header).hexdigest()
        try:
            state = read_state(self.layout.partial if self.layout.partial.exists() else self.layout.path)
        except OSError:
            return False
        if state.sha256 != expected:
            return False
        self._complete(state)
        return True

    def _write(self, row: Row) -> None:
        assert self._file
        self._file.write(row)
        if self._file.rows % self.run.part_rows == 0:
            self._make_checkpoint()

    def _make_checkpoint(self) -> None:
        if self._file and self._file.rows > self._safe:
            self._add_checkpoint(self._file.checkpoint(0))

    def _reread(self) -> None:
        assert self._file
        require_same(self.layout.partial, self._file.state)

    def _write_last(self) -> FileState:
        assert self._file
        self._make_checkpoint()
        self._file.checkpoint(0)  # syncs a file without rows too
        self._reread()
        return self._file.state

    def _complete(self, whole: FileState | None) -> None:
        assert self._journal
        assert whole
        if self.layout.partial.exists():
            self.layout.partial.replace(self.layout.path)
        sync(self.layout.path.parent)
        self._require_renamed(whole)
        self._journal.remove()
