"""An evaluation as plain text of at most a hundred columns; measures nothing."""

from collections.abc import Iterable, Sequence
from math import nan

from diffood.calibration.evaluate import Evaluation
from diffood.calibration.metrics.comparison import CLEARLY, WitnessComparison
from diffood.calibration.metrics.formatting import SMALLEST_SHOWN
from diffood.calibration.metrics.groups import GroupMetrics
from diffood.calibration.metrics.intervals import Interval
from diffood.calibration.metrics.rates import Rates
from diffood.calibration.metrics.rejection import KEPT, Rejection

UNFAIR = 0.05  # p-value, Holm's over the classes, from which a class is named
SPAN = 10  # characters of "91.1-100.0"


def table(result: Evaluation, class_names: Sequence[str]) -> str:
    """False alarms, accuracy where it is known, detection by set and group, and what each witness finds alone."""
    alarms = result.false_alarms
    lines = [
        f"false alarms  {alarms.rate:.1%} of {alarms.count} fresh in-distribution images "
        f"(95% interval {alarms.interval[0]:.1%} to {alarms.interval[1]:.1%}; asked for at most {result.alpha:.1%})",
        f"guarantee     {result.guarantee}",
    ]
    if result.rejection:
        lines.append(f"accuracy      {_rejection(result.rejection)}")
    elif result.labelled:
        lines.append(
            f"accuracy      not measured: {result.labelled} of {alarms.count} in-distribution images lie in a folder "
            "named like a class; all must"
        )
    lines += ["", *_sets(result), "", *_worst(result)]
    lines += [
        "In percent, with 95% intervals; means count every set the same. FPR@95: InD flagged when 95% of OOD",
        "is caught. missed@95: OOD accepted when 95% of InD is kept.",
    ]
    for row in result.by_class:
        if row.p_value <= UNFAIR:
            over = "for it" if row.predicted in result.class_thresholds else "over all classes"
            lines.append(
                f"class {class_names[row.predicted]}: {row.rate:.1%} of {row.count} flagged "
                f"({row.interval[0]:.1%} to {row.interval[1]:.1%}), more than the {result.alpha:.1%} asked for "
                f"{over}"
            )
    aside = {name: count for name, count in result.set_aside.items() if count}
    if aside:
        lines.append(f"set aside: {', '.join(f'{count} of {name}' for name, count in aside.items())}")
    if result.witnesses:
        lines += ["", *_witnesses(result, result.witnesses)]
    return "\n".join(lines)


def align(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of cells, each column as wide as its widest, the first to the left and the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _sets(result: Evaluation) -> list[str]:
    """A row a set, the mean of a group below its sets, the mean of all last."""
    rows = [
        ["", "", "detected", "AUROC", "FPR@95", "AUPR", "AUPR", "missed"],
        ["OOD set", "images", "", "", "", "IN", "OUT", "@95"],
    ]

    def add(names: Iterable[str]) -> None:
        for name in names:
            metrics, found = result.sets[name], (result.intervals[name], result.fpr_intervals[name])
            rows.append([name, f"{metrics.count}", *_rates(metrics, _span(*metrics.detection_interval), *found)])

    for group, members in result.groups.items():
        add(members.sets)
        rows.append(_mean(f"{group} mean", members))
    add(name for name in result.sets if all(name not in members.sets for members in result.groups.values()))
    rows.append(_mean("mean", result.overall))
    return align(rows)


def _mean(name: str, group: GroupMetrics) -> list[str]:
    return [name, "", *_rates(group.mean, "", group.auroc, group.fpr_at_95_detection)]


def _rates(rates: Rates, detection: str, area: Interval, fpr: Interval) -> list[str]:
    return [
        f"{100 * rates.detection_rate:.1f} {detection:>{SPAN}}",
        f"{100 * rates.auroc:.2f} {_span(area.low, area.high):>{SPAN}}",
        f"{100 * rates.fpr_at_95_detection:.1f} {_span(fpr.low, fpr.high):>{SPAN}}",
        f"{100 * rates.aupr_in:.2f}",
        f"{100 * rates.aupr_out:.2f}",
        f"{100 * rates.missed_at_95_kept:.1f}",
    ]


def _worst(result: Evaluation) -> list[str]:
    """The worst sets of each group, of all sets where there is no group."""
    of = {f"worst {group}": members for group, members in result.groups.items()} or {"worst": result.overall}
    return [
        f"{title}: AUROC {result.sets[group.lowest_auroc].auroc:.2%} on {group.lowest_auroc}, "
        f"FPR@95 {result.sets[group.highest_fpr].fpr_at_95_detection:.1%} on {group.highest_fpr}"
        for title, group in of.items()
    ]


def _rejection(found: Rejection) -> str:
    shares = " / ".join(f"{100 * share:g}" for share in KEPT)
    kept = " / ".join(f"{100 * found.curve.accuracy_at(share):.1f}" for share in KEPT)
    areas = f"AURC {found.curve.aurc:.4f}; OSCR {found.oscr.area:.1%}"
    return f"{found.accuracy:.1%}; {kept}% when {shares}% are kept; {areas}"


def _witnesses(result: Evaluation, compared: WitnessComparison) -> list[str]:
    """The fusion and each witness side by side, sets below one another, so that many sets do not make it wide."""
    alone, mean = compared.alone, result.overall.mean
    gains = [row.difference for row in alone.values()]
    ratios = [row.fpr.ratio or Interval(nan, nan, nan) for row in alone.values()]
    rows = [["AUROC", "fused", *alone]]
    for name, metrics in result.sets.items():
        cells = [f"{100 * row.auroc[name]:.2f}{'*' if name in row.ahead else ' '}" for row in alone.values()]
        rows.append([name, f"{100 * metrics.auroc:.2f} ", *cells])
    rows += [
        ["mean AUROC", f"{100 * mean.auroc:.2f} ", *(f"{100 * row.mean_auroc:.2f} " for row in alone.values())],
        ["  fused - alone", "", *(f"{100 * gain.value:+.2f} " for gain in gains)],
        ["  95% from", "", *(f"{100 * gain.low:+.2f} " for gain in gains)],
        ["  95% to", "", *(f"{100 * gain.high:+.2f} " for gain in gains)],
        ["  p-value", "", *(_p_value(gain.p_value) for gain in gains)],
        [
            "mean FPR@95",
            f"{100 * mean.fpr_at_95_detection:.1f} ",
            *(f"{100 * row.mean_fpr_at_95_detection:.1f} " for row in alone.values()),
        ],
        ["  fused / alone", "", *(f"{ratio.value:.2f} " for ratio in ratios)],
        ["  95% from", "", *(f"{ratio.low:.2f} " for ratio in ratios)],
        ["  95% to", "", *(f"{ratio.high:.2f} " for ratio in ratios)],
    ]
    best = alone[compared.best]
    ahead = ", ".join(f"{name} (by {100 * gain:.1f})" for name, gain in best.ahead.items()) or "no set"
    return [
        f"What each witness finds alone, in percent (*: above the fusion by more than {100 * CLEARLY:g} points)",
        *(line.rstrip() for line in align(rows)),
        f"Best alone: {compared.best}, mean AUROC {best.mean_auroc:.2%}; above the fusion by more than "
        f"{100 * CLEARLY:g} points on {ahead}.",
    ]


def _span(low: float, high: float) -> str:
    return f"{100 * low:.1f}-{100 * high:.1f}"


def _p_value(value: float) -> str:
    return f"<{SMALLEST_SHOWN:g} " if value < SMALLEST_SHOWN else f"{value:.3f} "
