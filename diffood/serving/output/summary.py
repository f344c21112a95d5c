"""Counts what a run did, row by row, and writes them to the summary file."""

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import Field

from diffood.errors import BundleError, UsageError
from diffood.runtime.bundle.bundle import Sha256
from diffood.runtime.bundle.files import read_record
from diffood.runtime.certificate import Certificate
from diffood.runtime.images.conversions import kinds_of
from diffood.runtime.inputs.labels import LeftOut
from diffood.runtime.records import Record
from diffood.serving.output.journal import RunRecord
from diffood.serving.rows.grouping import FolderOrder
from diffood.serving.rows.row import CertificateState, Row

MOST_REASONS = 1000  # reasons that are counted apart; files from outside must not fill the memory with new ones
MAX_SUMMARY_BYTES = 4 * 2**20  # reasons are short lines
OTHER_REASONS = "other reasons"
FILES_NAMED = 3  # per reason
LONGEST_NAME = 200  # characters of an id; a name in an archive may have thousands

State = Literal["finished", "stopped", "failed"]


class Summary(Record):
    """What a run did: counts of all its rows, including those of the runs it resumed.

    Attributes:
        scored: Rows with status "ok" or "invalid".
        reasons: How often each error occurs in the rows.
        conversions: Number of images by kind of change while they were read, as `kinds_of` names them.
        examples: Ids of the first rows with each error, shortened.
        left_out: How many files have no row, on purpose: labels of images, hidden files.
        resumed: Rows from earlier runs.
        seconds: Duration of the last run.
        images_per_second: Of the last run, over scored images, reading and writing included.
        batch: Images that the engine worked on at once; fewer than asked for if it ran out of memory.
        selected: Rows that --fdr selects; None without it, and while a batch is not finished.
        certificate: Of the promise about false alarms, when the last run began; as in rows.
        promise: What holds for the verdicts; None in older summaries.
    """

    state: State
    files: int
    scored: int
    flagged: int
    rejected: int
    invalid: int
    reasons: dict[str, int]
    conversions: dict[str, int]
    examples: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    left_out: dict[str, int] = Field(default_factory=dict)
    resumed: int
    seconds: float
    images_per_second: float
    unet_evaluations: int
    batch: int
    selected: int | None = None
    certificate: CertificateState = ""
    promise: Certificate | None = None


class SummaryFile(Summary):
    """Content of the summary file.

    Attributes:
        sha256: Of the finished output, if it is one file; of a folder the journal has that of each part.
    """

    engine: str
    run: RunRecord
    sha256: Sha256 | None = None


class Tally:
    """Counts of the rows so far. Another thread may read the numbers at any time."""

    def __init__(self, left_out: LeftOut | None = None, promise: Certificate | None = None) -> None:
        self.promise = promise
        self.statuses, self.reasons = Counter[str](ok=0, rejected=0, invalid=0), Counter[str]()
        self.conversions = Counter[str]()
        self.examples: dict[str, list[str]] = {}
        self.left_out = left_out or LeftOut()
        self.order = FolderOrder()
        self.flagged = self.unet_evaluations = self.resumed = self.batch = 0
        self.selected: int | None = None
        self.certificate: CertificateState = ""
        self._start, self._scored_before = time.monotonic(), 0

    @property
    def files(self) -> int:
        """All rows."""
        return sum(self.statuses.values())

    @property
    def scored(self) -> int:
        """Rows of images that were scored, including those with an invalid score."""
        return self.statuses["ok"] + self.statuses["invalid"]

    @property
    def seconds(self) -> float:
        """Seconds since this run began."""
        return time.monotonic() - self._start

    @property
    def images_per_second(self) -> float:
        """Images this run scored per second."""
        return self._rate(self.seconds)

    def _rate(self, seconds: float) -> float:
        return (self.scored - self._scored_before) / seconds if seconds else 0.0

    def add(self, row: Row) -> None:
        """Count a row."""
        self.statuses[row.status] += 1
        self.order.add(row.id)
        self.flagged += bool(row.is_ood)
        self.unet_evaluations += row.unet_evaluations
        self.conversions.update(kinds_of(row.note))
        if row.selected is not None:
            self.selected = (self.selected or 0) + row.selected
        if row.error:
            known = row.error in self.reasons or len(self.reasons) < MOST_REASONS
            reason = row.error if known else OTHER_REASONS
            self.reasons[reason] += 1
            if self.reasons[reason] <= FILES_NAMED:
                self.examples.setdefault(reason, []).append(row.id[:LONGEST_NAME])

    def begin(self) -> None:
        """Declare the rows so far to be from earlier runs, and start the clock."""
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
            conversions=dict(sorted(self.conversions.items())),
            examples={reason: tuple(self.examples[reason]) for reason in sorted(self.examples)},
            left_out=asdict(self.left_out),
            resumed=self.resumed,
            seconds=seconds,
            images_per_second=self._rate(seconds),
            unet_evaluations=self.unet_evaluations,
            batch=self.batch,
            selected=self.selected,
            certificate=self.certificate,
            promise=self.promise,
        )


def describe_run(summary: Summary, engine: str, run: RunRecord) -> SummaryFile:
    """Content of the summary file."""
    return SummaryFile(**summary.model_dump(), engine=engine, run=run)


def read_summary(path: Path, output: Path) -> SummaryFile:
    """The summary of a finished run. Raises UsageError if the file is missing, invalid or of an unfinished run."""
    try:
        found = read_record(path.parent, path.name, SummaryFile, limit=MAX_SUMMARY_BYTES)
    except BundleError:
        found = None
    if found is None or found.state != "finished":
        raise UsageError(
            f"{output} exists, and {path.name} does not tell which run wrote it: give another --output, or --overwrite "
            "to replace it."
        )
    return found
