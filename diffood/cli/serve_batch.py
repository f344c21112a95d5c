"""diffood serve-batch: a row for every file."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from diffood.cli import options, progress
from diffood.errors import EXIT_SET_ASIDE, UsageError
from diffood.runtime.detector import DEFAULT_BATCH, Detector
from diffood.runtime.images import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS, Limits
from diffood.runtime.serving.decoding import DEFAULT_SECONDS, Decoding, default_processes
from diffood.runtime.serving.rows import Row
from diffood.runtime.serving.sources.tables import DEFAULT_COLUMN

REASONS_SHOWN = 20


def serve_batch(
    bundle: options.BundlePath,
    output: Annotated[Path, typer.Option(help="File to write: .jsonl, .csv or .parquet.")],
    inputs: options.Inputs = None,
    backend: options.BackendName = "auto",
    precision: options.PrecisionName = None,
    batch: options.Batch = DEFAULT_BATCH,
    threads: options.Threads = 0,
    max_pixels: options.MaxPixels = DEFAULT_MAX_PIXELS,
    max_bytes: options.MaxBytes = DEFAULT_MAX_BYTES,
    decode_timeout: options.DecodeTimeout = DEFAULT_SECONDS,
    decoders: options.Decoders = None,
    image_column: options.ImageColumn = DEFAULT_COLUMN,
    id_column: options.IdColumn = "",
    watch: options.WatchFolder = None,
    watch_idle: options.WatchIdle = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Score on Ray: ray (one of this machine), auto, HOST:PORT or ray://HOST:PORT. See docs/cluster.md.",
            rich_help_panel="Machine",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Score every file with the calibrated bundle; broken files become rows with a reason (exit code 3).

    Example: diffood serve-batch bundle camera/ --output verdicts.parquet
    """
    from diffood.runtime.serving import pipeline
    from diffood.runtime.serving.cluster import DECODERS_A_WORKER, open_cluster
    from diffood.runtime.serving.sinks import Sink
    from diffood.runtime.serving.sources.inputs import Reading, open_inputs
    from diffood.runtime.serving.sources.live import Watch
    from diffood.runtime.serving.sources.tables import Columns

    sink = Sink(output)
    limits = Limits(max_bytes, max_pixels)
    if watch_idle is not None and not watch:
        raise UsageError("--watch-idle says when --watch ends; give the folder with --watch DIR.")
    watched = Watch(watch, watch_idle) if watch else None
    sources = open_inputs(inputs or [], Reading(limits, Columns(image_column, id_column), watched))
    if cluster is None:
        detector = Detector.open(bundle, backend=backend, precision=precision, batch=batch, threads=threads)
        calibration, engine = detector.calibration(), options.describe_engine(detector)
        decoding = Decoding(default_processes() if decoders is None else decoders, decode_timeout)
        with sink, progress.show_progress("scoring", None) as advance:
            summary = pipeline.serve_batch(detector, calibration, sources, sink, limits, advance, decoding)
    else:
        decoding = Decoding(DECODERS_A_WORKER if decoders is None else decoders, decode_timeout)
        with open_cluster(
            bundle,
            cluster,
            backend=backend,
            precision=precision,
            batch=batch,
            threads=threads,
            limits=limits,
            decoding=decoding,
        ) as workers:
            engine = workers.engine
            with sink, progress.show_progress("scoring", None) as advance:
                summary = pipeline.write_rows(_counted(workers.rows(sources), advance), sink)
    if as_json:
        typer.echo(json.dumps({**asdict(summary), "engine": engine}))
    else:
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
        typer.echo(f"wrote       {output}")
    if summary.rejected or summary.invalid:
        raise typer.Exit(EXIT_SET_ASIDE)


def _counted(rows: Iterator[Row], advance: Callable[[int], None]) -> Iterator[Row]:
    for row in rows:
        yield row
        advance(1)
