"""diffood serve-batch: one row per file, none lost and none twice, however the run ends."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from diffood.cli import progress
from diffood.cli.options import serving as serve_options
from diffood.cli.options import shared as options
from diffood.cli.options.inputs import InputOptions
from diffood.cli.options.limits import LimitOptions
from diffood.cli.options.machine import MachineOptions
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_lines, print_messages
from diffood.cli.text.conversions import describe_conversions
from diffood.errors import UsageError
from diffood.runtime.certificate import ThresholdChoice
from diffood.runtime.inputs.decoding import DEFAULT_SECONDS
from diffood.runtime.inputs.labels import LeftOut
from diffood.runtime.inputs.urls import hide_secrets
from diffood.runtime.inputs.watch import WatchedFolder
from diffood.runtime.printable import shell_word
from diffood.serving.output.base import OutputMode
from diffood.serving.output.layout import DEFAULT_PART_ROWS
from diffood.serving.request import InputRequest, OutputRequest, ScorerRequest, ServeRequest

if TYPE_CHECKING:
    from diffood.serving.output.summary import Tally
    from diffood.serving.serve import ServeProgress, ServeResult

REASONS_SHOWN = 20


@expand_records
def serve_batch(
    *,
    bundle: options.BundlePath,
    output: serve_options.Output,
    inputs: serve_options.Inputs = None,
    resume: serve_options.Resume = False,
    overwrite: serve_options.Overwrite = False,
    parts_format: serve_options.PartsFormat = None,
    part_rows: serve_options.PartRows = DEFAULT_PART_ROWS,
    save_flagged: serve_options.SaveFlagged = None,
    export_labels: serve_options.ExportLabels = None,
    fdr: serve_options.FalseDiscoveryRate = None,
    threshold: serve_options.Threshold = None,
    fpr: serve_options.Fpr = None,
    max_reject_rate: serve_options.MaxRejectRate = None,
    metrics_port: serve_options.MetricsPort = None,
    log: serve_options.LogFile = None,
    machine: MachineOptions,
    image_limits: LimitOptions,
    decode_timeout: serve_options.DecodeTimeout = DEFAULT_SECONDS,
    decoders: serve_options.Decoders = None,
    reading: InputOptions,
    shuffle: serve_options.Shuffle = False,
    watch: serve_options.WatchFolder = None,
    watch_idle: serve_options.WatchIdle = None,
    cluster: serve_options.Cluster = None,
    trust: TrustOptions,
    as_json: options.AsJson = False,
) -> None:
    """Score images with a calibrated bundle, one row per file.

    A broken file becomes a row with a reason, and the exit code is 3.

    Example: diffood serve-batch bundle camera/ --output verdicts.jsonl

    However a run ends, the same command with --resume continues it: every row once, the same bytes. Ctrl-C and SIGTERM
    finish the images under way (exit codes 130 and 143).

    Example: diffood serve-batch bundle camera/ --output verdicts/ --save-flagged flagged/ --resume
    """
    from diffood.runtime.stop import Stop
    from diffood.serving.serve import ServeObserver, serve

    request = ServeRequest(
        ScorerRequest(
            bundle,
            cluster,
            machine.backend_name,
            machine.precision,
            machine.batch,
            machine.threads,
            image_limits.read(),
            decoders,
            decode_timeout,
            choice=ThresholdChoice(threshold, fpr),
        ),
        InputRequest(tuple(inputs or ()), reading.request(), watched_folder(watch, watch_idle), shuffle),
        OutputRequest(
            output, parts_format, part_rows, output_mode(resume, overwrite), save_flagged, export_labels, fdr
        ),
        max_reject_rate,
        metrics_port,
        log,
    )
    result = serve(request, Stop(), ServeObserver(show_progress, print_messages, say_how_to_resume))
    show(result, output, as_json)
    raise typer.Exit(result.exit_code)


def output_mode(resume: bool, overwrite: bool) -> OutputMode:
    """What to do with rows that exist; UsageError for both flags."""
    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite starts over: give one of them.")
    return "resume" if resume else "overwrite" if overwrite else "new"


def watched_folder(folder: Path | None, idle: float | None) -> WatchedFolder | None:
    """The folder of --watch; UsageError for --watch-idle alone."""
    if idle is not None and not folder:
        raise UsageError("--watch-idle says when --watch ends; give the folder with --watch DIR.")
    return WatchedFolder(folder, idle) if folder else None


def say_how_to_resume() -> None:
    """Print the command that resumes this one."""
    print_messages(f"resume with  {resume_command(sys.argv[1:])}")


def resume_command(words: list[str]) -> str:
    """The command that resumes a run which was begun with these words; secrets of URLs are to be put in again."""
    kept = (hide_secrets(word) for word in words if word not in ("--resume", "--overwrite"))
    return " ".join(map(shell_word, ["diffood", *kept, "--resume"]))


def show_progress(run: "ServeProgress") -> AbstractContextManager[Callable[[int], None]]:
    """The progress of a run, with the state of its counts."""
    return progress.show_progress("scoring", run.total, run.resumed, lambda: describe_state(run.tally))


def describe_state(tally: "Tally") -> str:
    """A few words about a run in progress."""
    share = f"{tally.flagged / tally.scored:.1%}" if tally.scored else "none"
    return f"{share} flagged, {tally.statuses['rejected']} set aside"


def show(result: "ServeResult", output: Path, as_json: bool) -> None:
    """Print what a run did."""
    summary = result.summary
    if as_json:
        print_lines(json.dumps(result.as_json()))
        return
    print_lines(
        f"{summary.files} files: {summary.scored} scored, {summary.flagged} flagged as OOD, "
        f"{summary.rejected} set aside; {summary.images_per_second:.1f} images/s"
    )
    if summary.certificate == "withdrawn":
        print_lines("certificate withdrawn by feedback: `diffood feedback` says why; see `calibrate --from-feedback`")
    if summary.selected is not None:
        print_lines(f"selected    {summary.selected} by --fdr")
    print_lines(f"engine      {result.engine}")
    if summary.promise and not summary.promise.withdrawn:
        print_lines(f"guarantee   {summary.promise.statement}")
    print_lines(*describe_conversions(summary.conversions, summary.scored))
    most_frequent = sorted(summary.reasons.items(), key=lambda item: -item[1])
    for reason, count in most_frequent[:REASONS_SHOWN]:
        print_lines(f"set aside   {count} x {reason}")
        named = summary.examples.get(reason, ())
        print_lines(f"            {', '.join(map(repr, named))}{', …' if count > len(named) else ''}")
    if len(most_frequent) > REASONS_SHOWN:
        print_lines(f"set aside   for {len(most_frequent) - REASONS_SHOWN} more reasons; they are in the rows")
    if left_out := LeftOut(**summary.left_out).describe():
        print_lines(f"left out    {left_out}: they have no rows")
    if result.sorted_by_class:
        print_lines("order       rows come class by class, which `diffood monitor` calls drift: --shuffle mixes them")
    if summary.state == "finished":
        print_lines(f"wrote       {output}")
    else:
        print_lines(f"stopped     before the end; {output} has {summary.files} rows so far")
