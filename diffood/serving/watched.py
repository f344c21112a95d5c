"""A batch as an operator wants it: logged, measured, flagged images kept, ended early if most files are refused."""

import contextlib
from dataclasses import replace

from diffood.runtime.progress import Say
from diffood.serving.batch import BatchJob, OnRow, serve_batch
from diffood.serving.output.summary import Summary
from diffood.serving.request import ServeRequest
from diffood.serving.rows.row import Row
from diffood.serving.watching.flagged import FlaggedFolder
from diffood.serving.watching.log import EventLog
from diffood.serving.watching.metrics import serving_metrics
from diffood.serving.watching.rejects import RejectLimit


def serve_watched(job: BatchJob, request: ServeRequest, say: Say) -> Summary:
    """As `serve_batch`, watched as the request asks.

    Args:
        job: The batch.
        request: Which log, metrics, limit and folder of flagged images.
        say: Is told the address of the metrics, and that the engine ran out of memory.
    """
    tally, scorer, listeners = job.tally, job.scorer, [job.on_row]
    with contextlib.ExitStack() as stack:
        saved = request.output.save_flagged
        flagged = FlaggedFolder(saved, request.scorer.limits) if saved else None
        log = stack.enter_context(EventLog(request.log)) if request.log else None
        if log:
            listeners.append(log.row)
            target, resumed = str(job.output.layout.path), job.output.resumed
            log.event("start", output=target, resumed=resumed, precision=scorer.precision, backend=scorer.backend)
        if request.metrics_port is not None:
            metrics = serving_metrics(request.metrics_port, tally, scorer.precision, scorer.backend)
            say(f"metrics     {stack.enter_context(metrics)}")
        if request.max_reject_rate is not None:
            listeners.append(RejectLimit(request.max_reject_rate).row)
        on_row = _listen_to_memory(job, log, say, listeners)
        try:
            summary = serve_batch(replace(job, on_row=on_row, flagged=flagged))
        except BaseException as error:
            if log:
                log.event("failed", "error", error=str(error) or type(error).__name__, files=tally.files)
            raise
        if flagged and flagged.not_kept:
            say(f"not kept    {flagged.not_kept} flagged files; they changed or went away after they were scored")
            if log:
                log.event("not_kept", "warning", files=flagged.not_kept)
        if log:
            log.event(summary.state, files=summary.files, flagged=summary.flagged, rejected=summary.rejected)
        return summary


def _listen_to_memory(job: BatchJob, log: EventLog | None, say: Say, listeners: list[OnRow]) -> OnRow:
    """All listeners as one, which also reports when the engine continues with a smaller batch."""
    batch = job.scorer.batch

    def on_row(row: Row) -> None:
        nonlocal batch
        if job.tally.batch != batch:
            say(f"memory      Out of memory at batch {batch}; continuing with batch {job.tally.batch}.")
            if log:
                log.event("batch_halved", "warning", before=batch, now=job.tally.batch, files=job.tally.files)
            batch = job.tally.batch
        for listener in listeners:
            listener(row)

    return on_row
