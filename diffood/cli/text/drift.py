"""What `diffood monitor` prints, in lines. Prints nothing itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffood.calibration.metrics.formatting import percent
from diffood.cli.text.tables import table_lines

if TYPE_CHECKING:
    from diffood.calibration.drift.by_source import SourcesReport
    from diffood.calibration.drift.martingale import GroupDrift
    from diffood.calibration.drift.monitor import DriftReport, DriftWatch

GROUPS_SHOWN = 5
SORTED = (
    "order       The rows come folder by folder. Where folders are classes or kinds of images and not times, this",
    "            alone raises an alarm: serve the images again with --shuffle, or give rows in the order of time.",
)


def describe_watch(watch: "DriftWatch") -> str:
    """One line that says where a watch stands."""
    return (
        f"{watch.rows} rows, log10 of the martingale {watch.log10_martingale:.2f}, "
        f"at most {watch.log10_maximum:.2f}; alarm at {watch.log10_alarm:.2f}"
    )


def describe_drift(report: "DriftReport") -> list[str]:
    """Lines that say what was read, whether it drifts, since when, and which classes and sources do."""
    scored = report.rows - report.rejected
    share = percent(report.flagged / scored) if scored else "none"
    lines = [
        f"rows        {report.rows}: {scored} scored, {share} of them flagged, {report.rejected} rejected and left out",
        *([_describe_seen(report)] if report.seen else []),
        f"martingale  10^{report.log10_martingale:.2f} now, 10^{report.log10_maximum:.2f} at most; "
        f"alarm at 10^{report.log10_alarm:.2f}",
    ]
    if report.withdrawn:
        lines.append(f"certificate withdrawn by feedback: {report.withdrawn}")
    if report.alarm is None or report.began is None:
        return [*lines, "drift       no alarm: these rows do not contradict the calibration"]
    return [
        *lines,
        f"drift       ALARM at row {report.alarm.row} ({report.alarm.id!r}); without drift the probability of an alarm "
        f"is at most {report.level:g}",
        f"began       about row {report.began.row} ({report.began.id!r})",
        *(SORTED if report.sorted_by_folder else ()),
        *_describe_groups("class", report.classes),
        *_describe_groups("source", report.sources),
        "",
        "mean p: 0.5 if scores are as in the calibration, less if they are higher.",
        "test: probability of scores this high without drift.",
    ]


def describe_sources(report: "SourcesReport") -> list[str]:
    """A table of sources, those with an alarm first."""
    rows = []
    for found in report.sources:
        own = found.report
        scored = own.rows - own.rejected
        alarm = f"ALARM at its row {own.alarm.row} ({own.alarm.id!r})" if own.alarm else "no alarm"
        share = percent(own.flagged / scored) if scored else "none"
        limits = f"10^{own.log10_maximum:.2f} of 10^{own.log10_alarm:.2f}"
        rows.append((repr(found.source), f"{own.rows}", share, limits, alarm))
    lines = table_lines(("source", "rows", "flagged", "martingale", "drift"), rows)
    if report.withdrawn:
        lines = [*lines, f"certificate withdrawn by feedback: {report.withdrawn}"]
    shared = f"{len(report.sources)} sources share the level: without drift the probability of any alarm is at most"
    return [*lines, "", f"{shared} {report.level:g}"]


def _describe_seen(report: "DriftReport") -> str:
    return (
        f"not fresh   {report.seen} rows are of images the bundle was calibrated on: they are no new draws, and the "
        "test does not hold for them"
    )


def _describe_groups(kind: str, groups: "Sequence[GroupDrift]") -> list[str]:
    """A table of classes or sources, the most suspicious first."""
    rows = [
        (
            repr(group.name),
            f"{group.rows}",
            percent(group.flagged_share),
            f"{group.mean_p_value:.3f}",
            f"{group.p_value:.2g}",
        )
        for group in groups[:GROUPS_SHOWN]
    ]
    lines = ["", *table_lines((f"{kind} since then", "rows", "flagged", "mean p", "test"), rows)]
    if len(groups) > GROUPS_SHOWN:
        lines.append(f"and {len(groups) - GROUPS_SHOWN} more; --json has them all")
    return lines
