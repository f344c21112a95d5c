"""What the name of an output means, and the names of the files that belong to it."""

from dataclasses import dataclass
from pathlib import Path

from diffood.errors import UsageError
from diffood.serving.rows.formats.base import LineFormat, RowFormat
from diffood.serving.rows.formats.json_lines import PARTIAL
from diffood.serving.rows.formats.registry import DEFAULT_PARTS, ENDINGS, FORMATS, format_of
from diffood.serving.rows.parts import JOURNAL, SUMMARY, open_part_name, part_name

DEFAULT_PART_ROWS = 5000


@dataclass(frozen=True)
class OutputLayout:
    """Where a run writes.

    Attributes:
        path: The output: a file, or a folder of parts.
        format: Of the rows in it.
        folder: Where parts are written; None for one file of a LineFormat to which rows are appended.
    """

    path: Path
    format: RowFormat
    folder: Path | None

    @classmethod
    def of(cls, path: Path, format_name: str | None = None, *, completed_last: bool = False) -> "OutputLayout":
        """Read the name of an output: one file by its ending; a folder of parts without one, or if it is a folder.

        Args:
            path: Of the output.
            format_name: Format of the parts of a folder; Parquet if None.
            completed_last: Whether rows change once all of them are there, so that any file is made of parts.

        Raises:
            UsageError: The ending is unknown or contradicts `format_name`.
            MissingExtraError: A library that the format needs is missing.
        """
        ending = path.suffix or (path.name if path.name.startswith(".") else "")
        known = format_of(path)
        if known is None and ending and not path.is_dir():
            raise UsageError(
                f"Output {path.name!r} has no known ending: use one of {ENDINGS}, or a name without an ending for a "
                "folder of parts."
            )
        if known and format_name and format_name != known.name:
            raise UsageError(f"--format {format_name} contradicts --output {path.name!r}; leave it out.")
        chosen = known or FORMATS[format_name or DEFAULT_PARTS]
        chosen.require()
        if known is None:
            return cls(path, chosen, path)
        appended = isinstance(known, LineFormat) and not completed_last
        return cls(path, chosen, None if appended else path.with_name(path.name + PARTIAL))

    @property
    def is_dataset(self) -> bool:
        """Whether the folder of parts is the output, rather than a step towards one file."""
        return self.folder == self.path

    @property
    def partial(self) -> Path:
        """The file of lines until it is complete."""
        return self.path.with_name(self.path.name + PARTIAL)

    @property
    def journal(self) -> Path:
        """The journal of the run."""
        return self.folder / JOURNAL if self.folder else self.path.with_name(f"{self.path.name}.journal")

    @property
    def summary(self) -> Path:
        """The counts of the run."""
        return self.path / SUMMARY if self.is_dataset else self.path.with_name(f"{self.path.name}.summary.json")

    def part(self, number: int) -> Path:
        """A complete part."""
        assert self.folder
        return self.folder / part_name(number, self.format.name)

    def open_part(self, number: int) -> Path:
        """The part that is being written, as JSON Lines."""
        assert self.folder
        return self.folder / open_part_name(number)
