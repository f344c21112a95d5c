"""Serves a batch: a row a file into an output, on from the rows that are there. The one loop of `serve-batch`."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffood.errors import DiffoodError, UsageError
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.decision import Rule
from diffood.runtime.detector import Detector, ImageScore
from diffood.runtime.images.decode import DEFAULT_LIMITS, Limits
from diffood.runtime.inputs.decoding import IN_THREADS, Decoding
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.pipeline import Outcome, score_files
from diffood.serving.output.output import Output
from diffood.serving.output.summary import State, Summary, Tally, encode_summary
from diffood.serving.rows.row import Row
from diffood.serving.stop import Stop
from diffood.serving.watching.flagged import FlaggedFolder, draw_denoised

OnRow = Callable[[Row], None]


@dataclass(frozen=True)
class Scored:
    """A row and the item it is of; picture: what denoising made of a flagged one, as PNG, where it is asked for."""

    row: Row
    item: Item
    picture: bytes | None = None


class Scorer(Protocol):
    """What makes rows of files, here or on other machines."""

    @property
    def precision(self) -> str:
        """Of the engine."""

    @property
    def backend(self) -> str:
        """Of the engine."""

    @property
    def lanes(self) -> int:
        """Rows of every engine call, which may change."""

    def rows(self, items: Iterable[Item | Pause]) -> Iterator[Scored]:
        """A row a file, in order."""


@dataclass(frozen=True)
class Here:
    """Scores with a detector of this process. pictures: of flagged images are asked for."""

    detector: Detector
    calibration: Calibration
    limits: Limits = DEFAULT_LIMITS
    decoding: Decoding = IN_THREADS
    pictures: bool = False

    @property
    def precision(self) -> str:
        """Of the engine."""
        return self.detector.session.precision

    @property
    def backend(self) -> str:
        """Of the engine."""
        return self.detector.session.backend

    @property
    def lanes(self) -> int:
        """Fewer once memory did not suffice."""
        return self.detector.session.batch

    def rows(self, items: Iterable[Item | Pause]) -> Iterator[Scored]:
        """See Scorer.rows."""
        rule = Rule.of(self.calibration)
        for outcome in score_files(self.detector, items, self.limits, decoding=self.decoding):
            row = make_row(outcome, rule, self.detector)
            yield Scored(row, outcome.source, draw_denoised(outcome.result) if self.pictures and row.is_ood else None)


def serve_batch(
    scorer: Scorer,
    sources: Iterable[Item | Pause],
    output: Output,
    *,
    live: bool = False,
    tally: Tally | None = None,
    on_row: OnRow = lambda row: None,
    stop: Stop | None = None,
    flagged: FlaggedFolder | None = None,
) -> Summary:
    """Write a row a file into an entered output, finish it, and return the counts.

    Rows the output has from an earlier run are passed over, in step with the sources; UsageError where they do not
    belong together. live: the sources pass over them themselves, with `ids_there`, as their order is another. tally:
    counts to be looked at meanwhile. on_row: called after each new row; what it raises ends the run. stop: when it is
    wanted, the images under way are finished, and the output is left for a resume.
    """
    tally, stop = tally or Tally(), stop or Stop()
    tally.lanes = scorer.lanes

    def conclude(state: State, end: Callable[[bytes], None]) -> Summary:
        summary = tally.summary(state)
        end(encode_summary(summary, f"{scorer.precision} on {scorer.backend}", output.run))
        return summary

    items = iter(sources)
    if not live:
        pass_over(output, items, tally)
    tally.begin()
    try:
        for scored in scorer.rows(stop.until(items)):
            row = scored.row
            if flagged and row.is_ood:
                flagged.keep(tally.files, scored.item, row.sha256, scored.picture)
            output.write(row)
            tally.add(row)
            tally.lanes = scorer.lanes
            on_row(row)
    except BaseException:
        with contextlib.suppress(DiffoodError):
            conclude("failed", output.stop)
        raise
    return conclude("stopped", output.stop) if stop.wanted else conclude("finished", output.finish)


def ids_there(output: Output, tally: Tally) -> Iterator[str]:
    """Ids of the rows an output has, which are counted on the way."""
    for row in output.done():
        tally.add(row)
        yield row.id
    tally.begin()


def pass_over(output: Output, items: Iterator[Item | Pause], tally: Tally) -> None:
    """Count the rows an output has, and take as many items. UsageError where an id is not that of its row."""
    for row in output.done():
        item = next((item for item in items if not isinstance(item, Pause)), None)
        if item is None or item.id != row.id:
            found = "no more files" if item is None else repr(item.id)
            raise UsageError(
                f"The inputs have changed since {output.place.path} was begun: row {tally.files + 1} is of {row.id!r}, "
                f"and the inputs have {found} there. Give the inputs it was begun with, or another --output."
            )
        tally.add(row)


def make_row(outcome: Outcome[ImageScore], rule: Rule, detector: Detector) -> Row:
    """Say of one file what the calibration's rule makes of its score."""
    source, loaded, result = outcome.source, outcome.loaded, outcome.result
    if result is None:
        return Row(source.id, loaded.sha256, "rejected", error=loaded.error)
    evidence = result.evidence
    measured = (result.score, evidence.logits, evidence.features, evidence.denoised)
    finite = all(np.isfinite(values).all() for values in measured)  # a score may hide what some witness met
    score = result.score if finite else np.nan
    decisions = rule.decide(np.array([score]), np.array([evidence.predicted]))
    return Row(
        id=source.id,
        sha256=loaded.sha256,
        status="ok" if finite else "invalid",
        score=score,
        p_value=float(decisions.p_values[0]),
        threshold=float(decisions.thresholds[0]),
        is_ood=bool(decisions.is_ood[0]),
        predicted_class=evidence.predicted,
        class_name=detector.bundle.manifest.class_names[evidence.predicted],
        confidence=evidence.confidence,
        stage=result.stage,
        unet_evaluations=result.evaluations,
        note=loaded.note,
        error="" if finite else "The models gave a value that is not finite; flagged. Check the bundle's precision.",
    )
