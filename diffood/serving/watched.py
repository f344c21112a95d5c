"""A batch as an operator wants it: logged, measured, with flagged images kept and an end where most is refused."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from diffood.runtime.images.decode import DEFAULT_LIMITS, Limits
from diffood.runtime.inputs.items import Item, Pause
from diffood.serving.batch import OnRow, Scorer, serve_batch
from diffood.serving.output.output import Output
from diffood.serving.output.summary import Summary, Tally
from diffood.serving.rows.row import Row
from diffood.serving.stop import Stop
from diffood.serving.watching.flagged import FlaggedFolder
from diffood.serving.watching.log import Log
from diffood.serving.watching.metrics import serving_metrics
from diffood.serving.watching.rejects import RejectLimit


@dataclass(frozen=True)
class Watching:
    """What a run is to do beside its rows; None: not asked for. metrics_port: 0 for any that is free."""

    save_flagged: Path | None = None
    max_reject_rate: float | None = None
    metrics_port: int | None = None
    log: Path | None = None


def serve_watched(
    scorer: Scorer,
    sources: Iterable[Item | Pause],
    output: Output,
    limits: Limits = DEFAULT_LIMITS,
    watching: Watching = Watching(),
    *,
    live: bool = False,
    tally: Tally,
    stop: Stop,
    on_row: OnRow,
    say: Callable[[str], None],
) -> Summary:
    """As `serve_batch`, watched. say: is told the address of the metrics, and that memory did not suffice."""
    precision, backend, lanes, listeners = scorer.precision, scorer.backend, scorer.lanes, [on_row]
    with contextlib.ExitStack() as stack:
        flagged = FlaggedFolder(watching.save_flagged, limits) if watching.save_flagged else None
        log = Log(watching.log) if watching.log else None
        if log:
            stack.callback(log.close)
            listeners.append(log.row)
            place = str(output.place.path)
            log.event("start", output=place, resumed=output.resumed, precision=precision, backend=backend)
        if watching.metrics_port is not None:
            metrics = serving_metrics(watching.metrics_port, tally, precision, backend)
            say(f"metrics     {stack.enter_context(metrics)}")
        if watching.max_reject_rate is not None:
            listeners.append(RejectLimit(watching.max_reject_rate).row)

        def tell(row: Row) -> None:
            nonlocal lanes
            if tally.lanes != lanes:
                say(f"memory      did not suffice for {lanes} rows a call: going on with {tally.lanes}")
                if log:
                    log.event("lanes_halved", "warning", before=lanes, now=tally.lanes, files=tally.files)
                lanes = tally.lanes
            for listener in listeners:
                listener(row)

        try:
            summary = serve_batch(
                scorer, sources, output, live=live, tally=tally, on_row=tell, stop=stop, flagged=flagged
            )
        except BaseException as error:
            if log:
                log.event("failed", "error", error=str(error) or type(error).__name__, files=tally.files)
            raise
        if log:
            log.event(summary.state, files=summary.files, flagged=summary.flagged, rejected=summary.rejected)
        return summary
