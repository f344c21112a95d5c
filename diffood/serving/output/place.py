"""Where a run writes: what the name of an output means, and the names of the files beside it."""

from dataclasses import dataclass
from pathlib import Path

from diffood.errors import UsageError
from diffood.serving.rows.formats import FORMATS, Format, require_format
from diffood.serving.rows.parts import JOURNAL, PARTIAL, SUMMARY, open_part_name, part_name

DEFAULT_PART_ROWS = 5000


@dataclass(frozen=True)
class Place:
    """An output. folder: where its parts are made, None where it is one file of lines."""

    path: Path
    rows: Format
    folder: Path | None

    @classmethod
    def of(cls, path: Path, kind: Format | None = None) -> "Place":
        """Read the name of an output: one file by its ending; a folder of parts where it has none, or is one already.

        kind: of the parts, Parquet without. Raises UsageError for another ending, MissingExtraError without pyarrow.
        """
        ending = path.suffix or (path.name if path.name.startswith(".") else "")
        known = next((known for known in FORMATS if path.suffix == f".{known}"), None)
        if known is None and ending and not path.is_dir():
            raise UsageError(
                f"Output {path.name!r} has no known ending: use one of {', '.join(f'.{known}' for known in FORMATS)}, "
                "or for a folder of parts a name without an ending."
            )
        if known and kind and kind != known:
            raise UsageError(f"--format {kind} does not go with --output {path.name!r}; leave it out.")
        rows = known or kind or "parquet"
        require_format(rows)
        if known is None:
            return cls(path, rows, path)
        return cls(path, rows, path.with_name(path.name + PARTIAL) if known == "parquet" else None)

    @property
    def is_dataset(self) -> bool:
        """Whether the parts are the output, and not the making of one file."""
        return self.folder == self.path

    @property
    def partial(self) -> Path:
        """One file of lines, until it is whole."""
        return self.path.with_name(self.path.name + PARTIAL)

    @property
    def journal(self) -> Path:
        """The journal of the run."""
        return self.folder / JOURNAL if self.folder else self.path.with_name(f"{self.path.name}.journal")

    @property
    def summary(self) -> Path:
        """What the run did."""
        return self.path / SUMMARY if self.is_dataset else self.path.with_name(f"{self.path.name}.summary.json")

    def part(self, number: int) -> Path:
        """A part that is whole."""
        assert self.folder
        return self.folder / part_name(number, self.rows)

    def open_part(self, number: int) -> Path:
        """A part that is being written, as JSON lines."""
        assert self.folder
        return self.folder / open_part_name(number)
