"""Files to rows: decodes ahead of the engine, keeps the order, sets bad files aside. Memory is bounded by the batch."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from diffood.runtime.decision import Calibration, Rule
from diffood.runtime.detector import Detector, ImageScore
from diffood.runtime.images import DEFAULT_LIMITS, Limits, Loaded
from diffood.runtime.serving.decoding import IN_THREADS, MOST_HELD, Decoding, decode_ahead
from diffood.runtime.serving.rows import Row
from diffood.runtime.serving.sinks import Sink
from diffood.runtime.serving.sources import Item, Pause
from diffood.runtime.sessions import Array
from diffood.runtime.witnesses import Evidence

REFUSED_HELD = 1000  # refused files in a row after which their rows are brought out; some kilobytes each

Result = TypeVar("Result")
Progress = Callable[[int], None]  # called with the number of files done since the last call


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """One file's way through: result is None where the file was refused (loaded.error says why)."""

    source: Item
    loaded: Loaded
    result: Result | None


@dataclass(frozen=True)
class Summary:
    """What a run did. images_per_second counts scored images over the whole run, reading and writing included."""

    files: int
    scored: int
    flagged: int
    rejected: int
    invalid: int
    reasons: dict[str, int]
    seconds: float
    images_per_second: float
    unet_evaluations: int


def score_files(
    detector: Detector,
    sources: Iterable[Item | Pause],
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    decoding: Decoding = IN_THREADS,
) -> Iterator[Outcome[ImageScore]]:
    """Score files lazily; outcomes come in the order of `sources`, refused files among them.

    Where the sources pause, all outcomes before the pause are given first.
    """
    return _pass_files(detector, detector.stream, sources, limits, progress, decoding)


def observe_files(
    detector: Detector, sources: Iterable[Item], limits: Limits = DEFAULT_LIMITS, progress: Progress | None = None
) -> Iterator[Outcome[Evidence]]:
    """As `score_files`, but with what a pass leaves of each file, before anything is made of it."""
    return _pass_files(detector, detector.observe, sources, limits, progress)


def _pass_files(
    detector: Detector,
    work: Callable[[Iterable[tuple[Item, Array]]], Iterator[tuple[Item, Result]]],
    sources: Iterable[Item | Pause],
    limits: Limits,
    progress: Progress | None,
    decoding: Decoding = IN_THREADS,
) -> Iterator[Outcome[Result]]:
    waiting: deque[tuple[Item, Loaded]] = deque()  # in order; those before the next result were refused
    decoded = decode_ahead(sources, detector.bundle.manifest.image, limits, detector.session.batch, decoding)
    more, held = True, 0  # held: bytes that the waiting items hold themselves

    def accepted() -> Iterator[tuple[Item, Array]]:
        """Feed the detector; ends early in a long run of refused files or heavy items, which must not fill memory.

        And where the sources pause: an unfilled batch must not wait for the next file.
        """
        nonlocal more, held
        refused_in_a_row = 0
        for pair in decoded:
            if isinstance(pair, Pause):
                return
            source, loaded = pair
            waiting.append((source, loaded))
            held += source.held
            refused_in_a_row = 0 if loaded.x is not None else refused_in_a_row + 1
            if loaded.x is not None:
                yield source, loaded.x
            if refused_in_a_row == REFUSED_HELD or held > MOST_HELD:
                return
        more = False

    def oldest(result: Result | None) -> Outcome[Result]:
        nonlocal held
        source, loaded = waiting.popleft()
        held -= source.held
        return _counted(Outcome(source, loaded, result), progress)

    def refused() -> Iterator[Outcome[Result]]:
        while waiting and waiting[0][1].x is None:
            yield oldest(None)

    with closing(decoded):  # whose processes end at once where the pass ends early
        while more:
            for _, result in work(accepted()):
                yield from refused()
                yield oldest(result)
            yield from refused()


def _counted(outcome: Outcome[Result], progress: Progress | None) -> Outcome[Result]:
    if progress:
        progress(1)
    return outcome


def serve_batch(
    detector: Detector,
    calibration: Calibration,
    sources: Iterable[Item | Pause],
    sink: Sink,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    decoding: Decoding = IN_THREADS,
) -> Summary:
    """Write a row a file into an entered sink and return the counts of the run."""
    rule, outcomes = Rule.of(calibration), score_files(detector, sources, limits, progress, decoding)
    return write_rows((make_row(outcome, rule, detector) for outcome in outcomes), sink)


def write_rows(rows: Iterable[Row], sink: Sink) -> Summary:
    """Write rows into an entered sink as they come and return the counts of the run."""
    start, statuses, reasons, flagged, evaluations = time.monotonic(), Counter[str](), Counter[str](), 0, 0
    for row in rows:
        sink.write(row)
        statuses[row.status] += 1
        flagged += bool(row.is_ood)
        evaluations += row.unet_evaluations
        if row.error:
            reasons[row.error] += 1
    seconds = time.monotonic() - start
    scored = statuses["ok"] + statuses["invalid"]
    return Summary(
        files=statuses.total(),
        scored=scored,
        flagged=flagged,
        rejected=statuses["rejected"],
        invalid=statuses["invalid"],
        reasons=dict(sorted(reasons.items())),
        seconds=seconds,
        images_per_second=scored / seconds if seconds else 0.0,
        unet_evaluations=evaluations,
    )


def make_row(outcome: Outcome[ImageScore], rule: Rule, detector: Detector) -> Row:
    """Say of one file what the calibration's rule makes of its score."""
    source, loaded, result = outcome.source, outcome.loaded, outcome.result
    if result is None:
        return Row(source.id, loaded.sha256, "rejected", error=loaded.error)
    decisions = rule.decide(np.array([result.score]), np.array([result.evidence.predicted]))
    finite = bool(np.isfinite(result.score))
    return Row(
        id=source.id,
        sha256=loaded.sha256,
        status="ok" if finite else "invalid",
        score=result.score,
        p_value=float(decisions.p_values[0]),
        threshold=float(decisions.thresholds[0]),
        is_ood=bool(decisions.is_ood[0]),
        predicted_class=result.evidence.predicted,
        class_name=detector.bundle.manifest.class_names[result.evidence.predicted],
        confidence=result.evidence.confidence,
        stage=result.stage,
        unet_evaluations=result.evaluations,
        note=loaded.note,
        error="" if finite else "The models gave a value that is not finite; flagged. Check the bundle's precision.",
    )
