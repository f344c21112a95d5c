"""The one loop of serve-batch: every item becomes a row in the output, starting behind the rows that exist."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.stop import Stop
from diffood.serving.completing import RowCompletion
from diffood.serving.labelling import LabelFolder
from diffood.serving.local import Scorer
from diffood.serving.output.base import Output
from diffood.serving.output.summary import State, Summary, SummaryFile, Tally, describe_run
from diffood.serving.rows.row import Row
from diffood.serving.watching.flagged import FlaggedFolder

OnRow = Callable[[Row], None]


def _ignore(row: Row) -> None:
    """Do nothing with a row."""


@dataclass(frozen=True)
class BatchJob:
    """What `serve_batch` works on.

    Attributes:
        scorer: Turns items into rows.
        items: The inputs. Those of rows that exist are skipped, unless `live`.
        output: Where the rows go; entered.
        live: The items have no fixed order; `existing_rows` tells their source which to leave out.
        tally: Counts, which may be read meanwhile.
        stop: When requested, the images under way are finished and the output is left for a resume.
        on_row: Called after each new row is written; an exception from it ends the run.
        flagged: Where to keep flagged files.
        labels: Where to keep files that people are to label.
        completion: Fills the columns of rows that depend on the run.
    """

    scorer: Scorer
    items: Iterable[Item | Pause]
    output: Output
    live: bool = False
    tally: Tally = field(default_factory=Tally)
    stop: Stop = field(default_factory=Stop)
    on_row: OnRow = _ignore
    flagged: FlaggedFolder | None = None
    labels: LabelFolder | None = None
    completion: RowCompletion = field(default_factory=RowCompletion)


def serve_batch(job: BatchJob) -> Summary:
    """Write one row per item into the output, finish it and return the counts.

    Raises:
        UsageError: The items do not match the rows that exist.
        DiffoodError: The output cannot be written, or an item has no row.
    """
    tally, scorer, output = job.tally, job.scorer, job.output
    tally.batch = scorer.batch

    def conclude(state: State, end: Callable[[SummaryFile], None]) -> Summary:
        summary = tally.summary(state)
        end(describe_run(summary, f"{scorer.precision} on {scorer.backend}", output.run))
        return summary

    seen, written, items = 0, 0, iter(job.items)
    tally.begin()
    job.completion.begin(output.done())
    if not job.live and output.resumed + output.damaged:
        items = _without_existing(output, items, tally)
        first = next(items, None)  # inputs that do not match the rows are wrong usage, before anything is scored
        items = items if first is None else itertools.chain((first,), items)

    def counted() -> Iterator[Item | Pause]:
        nonlocal seen
        for item in job.stop.limit(items):
            seen += not isinstance(item, Pause)
            yield item

    try:
        for scored in scorer.rows(counted()):
            row = job.completion.complete(scored.row)
            if job.flagged and row.is_ood:
                job.flagged.keep(output.next_row, scored.item, row.sha256, scored.picture)
            if job.labels:
                job.labels.keep(row, scored.item)
            output.write(row)
            written += 1
            tally.add(row)
            tally.batch = scorer.batch
            job.on_row(row)
        _require_row_each(seen, written)
    except BaseException:
        with contextlib.suppress(DiffoodError):
            conclude("failed", output.stop)
        raise
    if job.stop.requested:
        return conclude("stopped", output.stop)
    if output.run.fdr is not None and job.completion.online is None:
        tally.selected = output.select(output.run.fdr)
    return conclude("finished", output.finish)


def _require_row_each(read: int, written: int) -> None:
    """Raise DiffoodError if some item that was read has no row."""
    if read != written:
        raise DiffoodError(
            f"{read} files were read and {written} rows written, a fault of diffood: please report it. The rows are "
            "kept unfinished; score the files again with --overwrite."
        )


def existing_rows(output: Output, tally: Tally) -> Iterator[tuple[str, str]]:
    """(id, SHA-256) of the rows an output has; counts them on the way."""
    for row in output.done():
        if row is not None:
            tally.add(row)
            yield row.id, row.sha256
    tally.begin()


def _without_existing(output: Output, items: Iterator[Item | Pause], tally: Tally) -> Iterator[Item | Pause]:
    """The items without a row, in order; counts the rows that exist, those before a damaged one first.

    Raises UsageError if the id of an item differs from that of its row.
    """
    for number, row in enumerate(output.done(), 1):
        item = next((item for item in items if not isinstance(item, Pause)), None)
        if item is None or (row is not None and item.id != row.id):
            found = "no more files" if item is None else repr(item.id)
            was = f"of {row.id!r}" if row is not None else "to be made again"
            raise UsageError(
                f"The inputs have changed since {output.layout.path} was begun: row {number} is {was}, and the inputs "
                f"have {found} there. Give the same inputs as before, or another --output."
            )
        if row is None:
            yield item
        else:
            tally.add(row)
    tally.begin()
    yield from items
