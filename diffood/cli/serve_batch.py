"""diffood serve-batch: a row for every file, none lost and none twice whatever ends the run."""

import functools
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from diffood import __version__
from diffood.cli import progress
from diffood.cli.options import serving as serve_options
from diffood.cli.options import shared as options
from diffood.cli.serve_scorer import Wanted, open_scorer
from diffood.errors import EXIT_SET_ASIDE, UsageError
from diffood.runtime.detector import DEFAULT_BATCH
from diffood.runtime.images.decode import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS, Limits
from diffood.runtime.inputs.decoding import DEFAULT_SECONDS
from diffood.runtime.inputs.tables import DEFAULT_COLUMN
from diffood.serving.output.place import DEFAULT_PART_ROWS, Place

if TYPE_CHECKING:
    from diffood.serving.output.output import Output
    from diffood.serving.output.summary import Summary, Tally

REASONS_SHOWN = 20


def serve_batch(
    bundle: options.BundlePath,
    output: serve_options.Output,
    inputs: serve_options.Inputs = None,
    resume: serve_options.Resume = False,
    overwrite: serve_options.Overwrite = False,
    parts_format: serve_options.PartsFormat = None,
    part_rows: serve_options.PartRows = DEFAULT_PART_ROWS,
    save_flagged: serve_options.SaveFlagged = None,
    max_reject_rate: serve_options.MaxRejectRate = None,
    metrics_port: serve_options.MetricsPort = None,
    log: serve_options.LogFile = None,
    backend: options.BackendName = "auto",
    precision: options.PrecisionName = None,
    batch: options.Batch = DEFAULT_BATCH,
    threads: options.Threads = 0,
    max_pixels: options.MaxPixels = DEFAULT_MAX_PIXELS,
    max_bytes: options.MaxBytes = DEFAULT_MAX_BYTES,
    decode_timeout: serve_options.DecodeTimeout = DEFAULT_SECONDS,
    decoders: serve_options.Decoders = None,
    image_column: serve_options.ImageColumn = DEFAULT_COLUMN,
    id_column: serve_options.IdColumn = "",
    watch: serve_options.WatchFolder = None,
    watch_idle: serve_options.WatchIdle = None,
    cluster: serve_options.Cluster = None,
    as_json: options.AsJson = False,
) -> None:
    """Score every file with the calibrated bundle; broken files become rows with a reason (exit code 3).

    Example: diffood serve-batch bundle camera/ --output verdicts.parquet

    However it ended, the same command with --resume goes on: every row once, the same bytes. Ctrl-C and SIGTERM finish
    the images under way (exit codes 130 and 143).

    Example: diffood serve-batch bundle camera/ --output verdicts/ --save-flagged flagged/ --resume
    """
    from diffood.runtime.bundle.parity import calibration_sha256
    from diffood.runtime.inputs.counting import count_beside
    from diffood.runtime.inputs.open import STANDARD_INPUT, Reading, open_inputs
    from diffood.runtime.inputs.tables import Columns
    from diffood.runtime.inputs.watch import Watch
    from diffood.serving.batch import ids_there
    from diffood.serving.output.journal import RunRecord
    from diffood.serving.output.output import open_output
    from diffood.serving.output.summary import Tally, read_summary
    from diffood.serving.stop import Stop, listening
    from diffood.serving.watched import Watching, serve_watched

    if resume and overwrite:
        raise UsageError("--resume goes on and --overwrite starts anew: give one of them.")
    place, limits = Place.of(output, parts_format), Limits(max_bytes, max_pixels)
    watching = Watching(save_flagged, max_reject_rate, metrics_port, log)
    if watch_idle is not None and not watch:
        raise UsageError("--watch-idle says when --watch ends; give the folder with --watch DIR.")
    stop, tally, given = Stop(), Tally(), inputs or []
    live = watch is not None or STANDARD_INPUT in given  # in no order that a resume would find again
    wanted = Wanted(backend, precision, batch, threads, limits, decoders, decode_timeout, save_flagged is not None)
    with open_scorer(bundle, cluster, wanted) as opened:
        run = RunRecord(
            diffood=__version__,
            fingerprint=opened.fingerprint,
            calibration_sha256=calibration_sha256(opened.bundle),
            batch=batch,
            threads=opened.threads,
            max_bytes=max_bytes,
            max_pixels=max_pixels,
            decode_timeout=decode_timeout,
            image_column=image_column,
            id_column=id_column,
            rows=place.rows,
            part_rows=part_rows,
            save_flagged=str(save_flagged.absolute()) if save_flagged else None,
        )
        target = open_output(place, run, "resume" if resume else "overwrite" if overwrite else "new")
        reading = Reading(
            limits,
            Columns(image_column, id_column),
            Watch(watch, watch_idle) if watch else None,
            done=ids_there(target, tally) if live else (),
            stop=stop.event,
        )
        sources = open_inputs(given, reading)
        summary: Summary
        try:
            with target, listening(stop):
                if target.finished:
                    summary = read_summary(place.summary, output)
                else:
                    state = functools.partial(describe_state, tally)
                    total = (lambda: None) if watch else count_beside(given)
                    with progress.show_progress("scoring", total, target.resumed, state) as advance:
                        summary = serve_watched(
                            opened.scorer, sources, target, limits, watching,
                            live=live, tally=tally, stop=stop, on_row=lambda row: advance(1), say=say,
                        )  # fmt: skip
        except BaseException as error:
            if not isinstance(error, UsageError):  # with what was given nothing could go on
                say_how_to_go_on(target)
            if isinstance(error, KeyboardInterrupt):  # the second signal
                raise typer.Exit(stop.exit_code) from None
            raise
    say_how_to_go_on(target)
    show(summary, opened.engine, output, as_json)
    if stop.wanted or summary.rejected or summary.invalid:
        raise typer.Exit(stop.exit_code if stop.wanted else EXIT_SET_ASIDE)


def say(text: str) -> None:
    """Tell the user; standard output is for the results."""
    typer.echo(text, err=True)


def say_how_to_go_on(output: "Output") -> None:
    """Where a run did not finish, the command that goes on with it."""
    if output.unfinished:
        say(f"go on with  {resume_command(sys.argv[1:])}")


def resume_command(words: list[str]) -> str:
    """The command that goes on with a run that was begun with these words."""
    return shlex.join(["diffood", *(word for word in words if word not in ("--resume", "--overwrite")), "--resume"])


def describe_state(tally: "Tally") -> str:
    """What there is to say of a run while it goes on."""
    share = f"{tally.flagged / tally.scored:.1%}" if tally.scored else "none"
    return f"{share} flagged, {tally.statuses['rejected']} set aside"


def show(summary: "Summary", engine: str, output: Path, as_json: bool) -> None:
    """Print what a run did."""
    if as_json:
        content = summary.model_dump(mode="json", exclude={"run"})
        typer.echo(json.dumps({**content, "engine": engine}))
        return
    typer.echo(
        f"{summary.files} files: {summary.scored} scored, {summary.flagged} flagged as OOD, "
        f"{summary.rejected} set aside; {summary.images_per_second:.1f} images/s"
    )
    typer.echo(f"engine      {engine}")
    commonest = sorted(summary.reasons.items(), key=lambda item: -item[1])
    for reason, count in commonest[:REASONS_SHOWN]:
        typer.echo(f"set aside   {count} x {reason}")
    if len(commonest) > REASONS_SHOWN:
        typer.echo(f"set aside   for {len(commonest) - REASONS_SHOWN} more reasons; they are in the rows")
    if summary.state == "finished":
        typer.echo(f"wrote       {output}")
    else:
        typer.echo(f"stopped     before the end; {output} has {summary.files} rows so far")
