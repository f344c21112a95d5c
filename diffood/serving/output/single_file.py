"""One file of lines, named NAME.partial until it is complete."""

from collections.abc import Iterator

from diffood.runtime.bundle.durable import sync
from diffood.serving.output.base import Output, OutputMode
from diffood.serving.output.journal import RunRecord
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.line_file import LineFile
from diffood.serving.rows.formats.base import LineFormat
from diffood.serving.rows.row import Row


class SingleFile(Output):
    """An output in a LineFormat."""

    def __init__(self, layout: OutputLayout, run: RunRecord, mode: OutputMode) -> None:
        super().__init__(layout, run, mode)
        assert isinstance(layout.format, LineFormat)
        self._format = layout.format

    def done(self) -> Iterator[Row]:
        """See Output.done."""
        if self._found.rows:
            yield from self._format.read(self.layout.partial)

    def _clear(self) -> None:
        self.layout.partial.unlink(missing_ok=True)

    def _start(self) -> None:
        self._file = LineFile(self.layout.partial, self._format)

    def _restore(self) -> None:
        self._file = LineFile(self.layout.partial, self._format, self._found.open)

    def _write(self, row: Row) -> None:
        assert self._file
        self._file.write(row)
        if self._file.rows % self.run.part_rows == 0:
            self._make_checkpoint()

    def _make_checkpoint(self) -> None:
        if self._file and self._file.rows > self._safe:
            self._add_checkpoint(self._file.checkpoint(0))

    def _write_last(self) -> None:
        assert self._file
        self._make_checkpoint()
        self._file.checkpoint(0)  # syncs a file without rows too

    def _complete(self) -> None:
        assert self._journal
        if self.layout.partial.exists():
            self.layout.partial.replace(self.layout.path)
        sync(self.layout.path.parent)
        self._journal.remove()
