"""diffood monitor: whether what is served still looks like what the bundle was calibrated on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffood.cli.options import shared as options
from diffood.errors import EXIT_ALARM

if TYPE_CHECKING:
    from diffood.calibration.drift.martingale import GroupDrift
    from diffood.calibration.drift.monitor import DriftReport, Watch

GROUPS_SHOWN = 5


def monitor(
    rows: Annotated[
        list[Path], typer.Argument(metavar="ROWS...", help="Files or folders of serve-batch, oldest first.")
    ],
    bundle: Annotated[Path, typer.Option(metavar="BUNDLE", help="The calibrated bundle that served them.")],
    level: Annotated[float, typer.Option(help="Probability of a false alarm, ever, that is accepted.")] = 0.01,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on reading the last file, a .jsonl, until an alarm or Ctrl-C.")
    ] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks, with --follow.")] = 2.0,
    output: Annotated[Path | None, typer.Option(help="File .png for a picture of the martingale.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Test whether served rows drift away from the calibration; exit code 4 on an alarm.

    Example: diffood monitor monday.jsonl tuesday.jsonl --bundle bundle --output drift.png
    """
    from diffood.calibration.drift import monitor as room
    from diffood.runtime.bundle.bundle import open_bundle
    from diffood.runtime.bundle.calibration import load_calibration

    if output is not None:
        options.require_png(output)
    watch = room.begin(load_calibration(open_bundle(bundle)), level)
    watch = room.observe_files(watch, rows[:-1] if follow else rows)
    if follow and not watch.alarmed:
        watch = room.follow_file(watch, rows[-1], interval, lambda now: typer.echo(state_line(now), err=True))
    report = room.conclude(watch)
    if output is not None:
        from diffood.report.charts.evaluation import draw_martingale

        began = report.began.row if report.began else None
        draw_martingale(report.numbers, report.path, report.log10_alarm, began, output)
    typer.echo(json.dumps(report.as_json()) if as_json else table(report))
    if report.alarm is not None:
        raise typer.Exit(EXIT_ALARM)


def state_line(watch: "Watch") -> str:
    """One line that says where a watch stands."""
    return (
        f"{watch.rows} rows, log10 of the martingale {watch.log10_martingale:.2f}, "
        f"at most {watch.log10_maximum:.2f}; alarm at {watch.log10_alarm:.2f}"
    )


def table(report: "DriftReport") -> str:
    """The report as plain text."""
    bet_on = report.rows - report.rejected
    share = f"{report.flagged / bet_on:.1%}" if bet_on else "none"
    lines = [
        f"rows        {report.rows}: {bet_on} scored, {share} of them flagged, {report.rejected} rejected and left out",
        f"martingale  10^{report.log10_martingale:.2f} now, 10^{report.log10_maximum:.2f} at most; "
        f"alarm at 10^{report.log10_alarm:.2f}",
    ]
    if report.alarm is None or report.began is None:
        lines.append("drift       no alarm: these rows do not contradict the calibration")
        return "\n".join(lines)
    lines += [
        f"drift       ALARM at row {report.alarm.row} ({report.alarm.id!r}); without drift the chance of one is "
        f"{report.level:g} at most",
        f"began       about row {report.began.row} ({report.began.id!r})",
        *group_lines("class", report.classes),
        *group_lines("source", report.sources),
        "",
        "mean p: 0.5 where scores are as in the calibration, less where they are higher. test: chance of scores this "
        "high without drift.",
    ]
    return "\n".join(lines)


def group_lines(kind: str, groups: "tuple[GroupDrift, ...]") -> list[str]:
    """The rows of the table about classes or sources; the most suspicious first."""
    lines = ["", f"{kind + ' since then':<24}{'rows':>8}{'flagged':>10}{'mean p':>9}{'test':>10}"]
    for group in groups[:GROUPS_SHOWN]:
        lines.append(
            f"{group.name!r:<24}{group.rows:>8}{group.flagged_share:>10.1%}{group.mean_p_value:>9.3f}"
            f"{group.p_value:>10.2g}"
        )
    if len(groups) > GROUPS_SHOWN:
        lines.append(f"and {len(groups) - GROUPS_SHOWN} more; --json has them all")
    return lines
