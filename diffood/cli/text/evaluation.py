"""What `diffood evaluate` prints, in lines of at most a hundred columns. Prints nothing itself."""

from collections.abc import Iterable, Sequence
from math import nan

from diffood.calibration.metrics.comparison import CLEARLY, WitnessComparison
from diffood.calibration.metrics.evaluation import Evaluation, IndEvaluation
from diffood.calibration.metrics.formatting import SMALLEST_SHOWN, percent, points
from diffood.calibration.metrics.groups import GroupMetrics
from diffood.calibration.metrics.intervals import Interval
from diffood.calibration.metrics.rates import Rates
from diffood.calibration.metrics.rejection import KEPT, Rejection
from diffood.calibration.scored_files import IND
from diffood.calibration.seen import describe_seen
from diffood.cli.text.conversions import describe_conversions_by_set
from diffood.cli.text.tables import table_lines

UNFAIR = 0.05  # p-value, Holm's over the classes, from which a class is named
CHANCE = 0.5  # the AUROC of guessing
SPAN = 10  # characters of "91.1-100.0"


def describe_evaluation(result: IndEvaluation, class_names: Sequence[str]) -> list[str]:
    """Lines about false alarms, accuracy where it is known, and detection by set, group and witness."""
    alarms, fresh = result.false_alarms, "" if IND in result.seen else "fresh "
    aside = {name: count for name, count in result.set_aside.items() if count}
    return [
        f"false alarms  {percent(alarms.rate)} of {alarms.count} {fresh}in-distribution images "
        f"(95% interval {_interval(alarms.interval)}; asked for at most {percent(result.alpha)})",
        f"guarantee     {result.guarantee}",
        *(f"not fresh     {said}" for said in describe_seen(result.seen, result.images)),
        *_accuracy(result),
        *(_detection(result) if isinstance(result, Evaluation) else ["detection     not measured: no OOD set given"]),
        *_unfair_classes(result, class_names),
        *_conversions(result),
        *([f"set aside: {', '.join(f'{count} of {name}' for name, count in aside.items())}"] if aside else []),
        *(["", *_witnesses(result, result.witnesses)] if isinstance(result, Evaluation) and result.witnesses else []),
    ]


def _detection(result: Evaluation) -> list[str]:
    return [
        "",
        *_sets(result),
        "",
        *_worst(result),
        "In percent, with 95% intervals; means count every set the same. FPR@95: InD flagged when 95% of OOD",
        "is caught. missed@95: OOD accepted when 95% of InD is kept.",
    ]


def _conversions(result: IndEvaluation) -> list[str]:
    sets = [(name, found, result.images[name]) for name, found in result.conversions.items()]
    return describe_conversions_by_set(sets)


def _accuracy(result: IndEvaluation) -> list[str]:
    if result.rejection:
        return [f"accuracy      {_rejection(result.rejection)}"]
    if result.labelled:
        return [
            f"accuracy      not measured: {result.labelled} of {result.false_alarms.count} in-distribution images lie "
            "in a folder named like a class; all must"
        ]
    return []


def _rejection(found: Rejection) -> str:
    shares = " / ".join(f"{100 * share:g}" for share in KEPT)
    kept = " / ".join(f"{100 * found.curve.accuracy_at(share):.1f}" for share in KEPT)
    areas = f"AURC {found.curve.aurc:.4f}{f'; OSCR {percent(found.oscr.area)}' if found.oscr else ''}"
    return f"{percent(found.accuracy)}; {kept}% when {shares}% are kept; {areas}"


def _sets(result: Evaluation) -> list[str]:
    """A row per set, the mean of a group below its sets, the mean of all last."""
    heads = ("OOD set", "images", "detected", "AUROC", "FPR@95", "AUPR\nIN", "AUPR\nOUT", "missed\n@95")
    rows = []

    def add(names: Iterable[str]) -> None:
        for name in names:
            metrics, found = result.sets[name], (result.intervals[name], result.fpr_intervals[name])
            rows.append([name, f"{metrics.count}", *_rates(metrics, _span(*metrics.detection_interval), *found)])

    for group, members in result.groups.items():
        add(members.sets)
        rows.append(_mean(f"{group} mean", members))
    add(name for name in result.sets if all(name not in members.sets for members in result.groups.values()))
    rows.append(_mean("mean", result.overall))
    return table_lines(heads, rows)


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
    groups = {f"worst {group}": members for group, members in result.groups.items()} or {"worst": result.overall}
    return [
        f"{title}: AUROC {percent(result.sets[group.lowest_auroc].auroc, 2)} on {group.lowest_auroc}, "
        f"FPR@95 {percent(result.sets[group.highest_fpr].fpr_at_95_detection)} on {group.highest_fpr}"
        for title, group in groups.items()
    ]


def _unfair_classes(result: IndEvaluation, class_names: Sequence[str]) -> list[str]:
    """The classes with more false alarms than was asked for, beyond chance."""
    return [
        f"class {class_names[row.predicted]}: {percent(row.rate)} of {row.count} flagged ({_interval(row.interval)}), "
        f"more than the {percent(result.alpha)} asked for "
        f"{'for it' if row.predicted in result.class_thresholds else 'over all classes'}"
        for row in result.by_class
        if row.p_value <= UNFAIR
    ]


def _witnesses(result: Evaluation, compared: WitnessComparison) -> list[str]:
    """The fusion and each witness in columns, sets in rows, so that many sets do not make the table wide."""
    alone, mean = compared.alone, result.overall.mean
    gains = [row.difference for row in alone.values()]
    ratios = [row.fpr.ratio or Interval(nan, nan, nan) for row in alone.values()]
    rows = []
    for name, metrics in result.sets.items():
        cells = [f"{100 * row.auroc[name]:.2f}{'*' if name in row.ahead else ' '}" for row in alone.values()]
        rows.append([name, f"{100 * metrics.auroc:.2f} ", *cells])
    rows += [
        ["mean AUROC", f"{100 * mean.auroc:.2f} ", *(f"{100 * row.mean_auroc:.2f} " for row in alone.values())],
        ["  fused - alone", "", *(f"{points(gain.value)} " for gain in gains)],
        ["  95% from", "", *(f"{points(gain.low)} " for gain in gains)],
        ["  95% to", "", *(f"{points(gain.high)} " for gain in gains)],
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
        *table_lines(("AUROC", "fused ", *(f"{name} " for name in alone)), rows),
        f"Best alone: {compared.best}, mean AUROC {percent(best.mean_auroc, 2)}; above the fusion by more than "
        f"{100 * CLEARLY:g} points on {ahead}.",
        *_below_chance(compared),
        *_without_unet(compared),
    ]


def _without_unet(compared: WitnessComparison) -> list[str]:
    found = compared.without_unet
    if found is None:
        return []
    gain = found.difference
    return [
        f"What the UNet adds: without it, the other witnesses have a mean AUROC of {percent(found.mean_auroc, 2)};",
        f"with it, the fusion is {points(gain.value)} points from that ({points(gain.low)} to {points(gain.high)}).",
    ]


def _below_chance(compared: WitnessComparison) -> list[str]:
    weak = [f"{name} ({percent(row.mean_auroc)})" for name, row in compared.alone.items() if row.mean_auroc < CHANCE]
    if not weak:
        return []
    return [f"Below chance: {', '.join(weak)}; `diffood tune` finds a plan without, or name --witnesses."]


def _interval(bounds: tuple[float, float]) -> str:
    return f"{percent(bounds[0])} to {percent(bounds[1])}"


def _span(low: float, high: float) -> str:
    return f"{100 * low:.1f}-{100 * high:.1f}"


def _p_value(value: float) -> str:
    return f"<{SMALLEST_SHOWN:g} " if value < SMALLEST_SHOWN else f"{value:.3f} "
