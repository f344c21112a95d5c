"""Charts of an evaluation: score histograms with the threshold, drift, rejection."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from diffood.calibration.evaluate import Evaluation
from diffood.calibration.metrics.rejection import Rejection
from diffood.report.charts.style import PALETTE, save
from diffood.report.score_axis import drawn_scores, drawn_threshold, score_axis, score_span, score_ticks

BINS = 48
QUANTITY = "OOD score (higher: more unlike the training data)"


def draw_evaluation(result: Evaluation, folder: Path) -> None:
    """Draw scores.png, and rejection.png where accuracy is known, into a folder."""
    per_class = bool(result.class_thresholds)
    drawn = {
        name: drawn_scores(scores, result.thresholds[name], per_class=per_class)
        for name, scores in result.scores.items()
    }
    quantity = "OOD score above its class's threshold" if per_class else QUANTITY
    limit = drawn_threshold(result.threshold, per_class=per_class)
    draw_histograms(drawn, limit, result.alpha, folder / "scores.png", quantity)
    if result.rejection:
        draw_rejection(result.rejection, folder / "rejection.png")


def draw_histograms(
    scores: Mapping[str, npt.NDArray[np.float64]],
    threshold: float,
    alpha: float,
    path: Path,
    quantity: str = QUANTITY,
) -> None:
    """Draw one panel a set ("ind" first) on a shared axis, the threshold through all, the flagged side shaded."""
    finite = {name: values[np.isfinite(values)] for name, values in scores.items()}
    span = score_span(finite.values(), threshold)
    place = score_axis(threshold, span)
    low, high, limit = float(place(span[0])), float(place(span[1])), float(place(threshold))
    edges = np.linspace(low, high, BINS + 1)
    figure = Figure(figsize=(8, 0.6 + 0.95 * len(scores)), layout="constrained")
    panels = figure.subplots(len(scores), 1, sharex=True, squeeze=False)[:, 0]
    for index, (panel, (name, values)) in enumerate(zip(panels, scores.items(), strict=True)):
        panel.hist(np.clip(place(finite[name]), low, high), edges, color=PALETTE[index % len(PALETTE)], alpha=0.85)
        panel.axvspan(limit, high, color="#000000", alpha=0.06, lw=0)
        panel.axvline(limit, color="black", lw=1.2)
        share = float(np.mean(values > threshold))
        label = "in-distribution test" if name == "ind" else name
        title = f"{label}: {share:.1%} flagged of {len(values)}"
        panel.set_title(title, loc="left", fontsize=9, parse_math=False)  # a $ in a name is no formula
        panel.set_yticks([])
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[0].text(limit, panels[0].get_ylim()[1], " threshold", va="top", fontsize=8)
    ticks = score_ticks(place, span)
    panels[-1].set_xticks([float(place(tick)) for tick in ticks], [f"{tick:g}" for tick in ticks])
    panels[-1].set_xlabel(f"{quantity}; at most {alpha:.1%} false alarms asked for")
    save(figure, path)


def draw_martingale(
    numbers: npt.NDArray[np.int64],
    path_log10: npt.NDArray[np.float64],
    alarm_log10: float,
    began: int | None,
    path: Path,
) -> None:
    """Draw log10 of the drift martingale [N] over the rows' numbers [N], its alarm line, and the row it began at."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    panel = figure.subplots()
    panel.plot(numbers, path_log10, color=PALETTE[0], lw=1.2)
    panel.axhline(alarm_log10, color="black", lw=1.2)
    panel.annotate(
        "alarm ", (1, alarm_log10), xycoords=panel.get_yaxis_transform(), va="bottom", ha="right", fontsize=8
    )
    if began is not None:
        panel.axvspan(began, int(numbers[-1]), color="#000000", alpha=0.06, lw=0)
        panel.axvline(began, color=PALETTE[1], lw=1.2)
        panel.annotate(
            f" began about row {began}", (began, 0.98), xycoords=panel.get_xaxis_transform(), va="top", fontsize=8
        )
    panel.set_xlabel("served row")
    panel.set_ylabel("log10 of the martingale")
    panel.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def draw_rejection(found: Rejection, path: Path) -> None:
    """Draw accuracy against the share of InD images kept, and the open-set classification rate, side by side."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    kept, open_set = figure.subplots(1, 2)
    kept.plot(100 * found.curve.kept, 100 * found.curve.accuracy, color=PALETTE[0], lw=1.2)
    kept.axhline(100 * found.accuracy, color="black", lw=0.8, ls=":")
    kept.set(xlim=(100, 0), xlabel="in-distribution images kept, %", ylabel="accuracy of those kept, %")
    kept.set_title(f"accuracy {found.accuracy:.1%}, AURC {found.curve.aurc:.4f}", loc="left", fontsize=9)
    rates = found.oscr.false_positive_rate, found.oscr.correct_classification_rate
    open_set.plot(*(100 * rate for rate in rates), color=PALETTE[1], lw=1.2)
    open_set.set(xlim=(0, 100), ylim=(0, 100), xlabel="OOD images kept, %", ylabel="InD images kept and right, %")
    open_set.set_title(f"OSCR {found.oscr.area:.1%}", loc="left", fontsize=9)
    for panel in (kept, open_set):
        panel.spines[["top", "right"]].set_visible(False)
    save(figure, path)
