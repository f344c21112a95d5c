"""What a run did, counted row by row, and summary.json, which says it beside the output."""

import time
from collections import Counter
from pathlib import Path
from typing import Literal

from diffood.errors import BundleError, UsageError
from diffood.runtime.bundle.files import read_record, record_bytes
from diffood.runtime.records import Record
from diffood.serving.output.journal import RunRecord
from diffood.serving.rows.row import Row

MOST_REASONS = 1000  # that are told apart; files from outside must not fill memory with new ones
MAX_SUMMARY_BYTES = 4 * 2**20  # reasons are short lines
OTHER_REASONS = "other reasons"

State = Literal["finished", "stopped", "failed"]


class Summary(Record):
    """What a run did, all its rows counted, those of the runs it goes on from too.

    resumed: how many rows those are. seconds and images_per_second are of the last run alone, of scored images, reading
    and writing included. lanes: rows of every engine call, fewer than asked for where memory did not suffice.
    """

    state: State
    files: int
    scored: int
    flagged: int
    rejected: int
    invalid: int
    reasons: dict[str, int]
    resumed: int
    seconds: float
    images_per_second: float
    unet_evaluations: int
    lanes: int


class SummaryFile(Summary):
    """summary.json."""

    engine: str
    run: RunRecord


class Tally:
    """Counts of the rows so far. The numbers can be read by another thread at any time."""

    def __init__(self) -> None:
        self.statuses, self.reasons = Counter[str](ok=0, rejected=0, invalid=0), Counter[str]()
        self.flagged = self.unet_evaluations = self.resumed = self.lanes = 0
        self._start, self._scored_before = time.monotonic(), 0

    @property
    def files(self) -> int:
        """Rows."""
        return sum(self.statuses.values())

    @property
    def scored(self) -> int:
        """Rows of images that were scored, to an invalid value too."""
        return self.statuses["ok"] + self.statuses["invalid"]

    @property
    def seconds(self) -> float:
        """Since this run began."""
        return time.monotonic() - self._start

    @property
    def images_per_second(self) -> float:
        """Images that this run scored, a second."""
        return self._rate(self.seconds)

    def _rate(self, seconds: float) -> float:
        return (self.scored - self._scored_before) / seconds if seconds else 0.0

    def add(self, row: Row) -> None:
        """Count a row."""
        self.statuses[row.status] += 1
        self.flagged += bool(row.is_ood)
        self.unet_evaluations += row.unet_evaluations
        if row.error:
            known = row.error in self.reasons or len(self.reasons) < MOST_REASONS
            self.reasons[row.error if known else OTHER_REASONS] += 1

    def begin(self) -> None:
        """Say that the rows so far are from earlier runs."""
        self.resumed, self._scored_before, self._start = self.files, self.scored, time.monotonic()

    def summary(self, state: State) -> Summary:
        """The counts as they are now."""
        seconds = self.seconds
        return Summary(
            state=state,
            files=self.files,
            scored=self.scored,
            flagged=self.flagged,
            rejected=self.statuses["rejected"],
            invalid=self.statuses["invalid"],
            reasons=dict(sorted(self.reasons.items())),
            resumed=self.resumed,
            seconds=seconds,
            images_per_second=self._rate(seconds),
            unet_evaluations=self.unet_evaluations,
            lanes=self.lanes,
        )


def encode_summary(summary: Summary, engine: str, run: RunRecord) -> bytes:
    """summary.json as bytes."""
    return record_bytes(SummaryFile(**summary.model_dump(), engine=engine, run=run))


def read_summary(path: Path, output: Path) -> SummaryFile:
    """The summary of a finished run, beside its output. UsageError where there is none that holds."""
    try:
        found = read_record(path.parent, path.name, SummaryFile, limit=MAX_SUMMARY_BYTES)
    except BundleError:
        found = None
    if found is None or found.state != "finished":
        raise UsageError(
            f"{output} is there already, and nothing beside it tells which run wrote it: give another --output, or "
            "--overwrite to replace it."
        )
    return found
