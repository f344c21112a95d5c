"""diffood monitor: whether what is served still looks like what the bundle was calibrated on."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.parsers import png_file
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_messages, print_result
from diffood.errors import EXIT_ALARM, UsageError

if TYPE_CHECKING:
    from diffood.runtime.bundle.bundle import Bundle


@expand_records
def monitor(
    *,
    rows: Annotated[
        list[Path], typer.Argument(metavar="ROWS...", help="Files or folders of serve-batch, oldest first.")
    ],
    bundle: Annotated[Path, typer.Option(metavar="BUNDLE", help="The calibrated bundle that served them.")],
    level: Annotated[float, typer.Option(help="Accepted probability of ever raising a false alarm.")] = 0.01,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep reading the last file, a .jsonl, until an alarm or Ctrl-C.")
    ] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks, with --follow.")] = 2.0,
    by_source: Annotated[
        bool,
        typer.Option("--by-source", help="Watch each first folder of the ids apart; all share the level."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.png", parser=png_file, help="Picture of the martingale.")
    ] = None,
    trust: TrustOptions,
    as_json: options.AsJson = False,
) -> None:
    """Test whether served images drift from the calibration.

    The exit code is 4 on an alarm, and where `diffood feedback` has withdrawn the certificate.

    Example: diffood monitor monday.jsonl tuesday.jsonl --bundle bundle --output drift.png
    """
    from diffood.calibration.drift.monitor import begin, conclude, follow_file, observe_files
    from diffood.cli.text.drift import describe_drift, describe_watch
    from diffood.runtime.bundle.bundle import open_bundle
    from diffood.runtime.bundle.calibration import load_calibration
    from diffood.runtime.bundle.feedback import find_withdrawn

    opened = open_bundle(bundle)
    if by_source:
        if follow or output is not None:
            raise UsageError("--by-source reads whole files and draws no picture: leave --follow and --output out.")
        _by_source(opened, rows, level, as_json=as_json)
        return
    watch = begin(load_calibration(opened), level)
    watch = observe_files(watch, rows[:-1] if follow else rows)
    if follow and not watch.alarmed:
        watch = follow_file(watch, rows[-1], interval, lambda now: print_messages(describe_watch(now)))
    report = replace(conclude(watch), withdrawn=find_withdrawn(opened, watch.calibration))
    if output is not None:
        from diffood.report.charts.drift_martingale import draw_martingale

        draw_martingale(report, output)
    print_result(report, describe_drift, as_json)
    if report.alarm is not None or report.withdrawn:
        raise typer.Exit(EXIT_ALARM)


def _by_source(bundle: "Bundle", rows: list[Path], level: float, *, as_json: bool) -> None:
    from diffood.calibration.drift.by_source import monitor_sources
    from diffood.cli.text.drift import describe_sources
    from diffood.runtime.bundle.calibration import load_calibration
    from diffood.runtime.bundle.feedback import find_withdrawn

    calibration = load_calibration(bundle)
    found = monitor_sources(calibration, rows, level)
    report = replace(found, withdrawn=find_withdrawn(bundle, calibration))
    print_result(report, describe_sources, as_json)
    if report.alarmed or report.withdrawn:
        raise typer.Exit(EXIT_ALARM)
