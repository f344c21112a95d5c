"""The pictures of `diffood evaluate`."""

from pathlib import Path

from diffood.calibration.metrics.evaluation import IndEvaluation
from diffood.report.charts.rejection_curve import draw_rejection
from diffood.report.charts.score_axis import drawn_scores, drawn_threshold
from diffood.report.charts.score_histogram import draw_histograms


def draw_evaluation(result: IndEvaluation, folder: Path) -> None:
    """Write scores.png, and rejection.png where accuracy is known, into a folder."""
    per_class = bool(result.class_thresholds)
    sets = {
        name: drawn_scores(scores, result.thresholds[name], per_class=per_class)
        for name, scores in result.scores.items()
    }
    threshold = drawn_threshold(result.threshold, per_class=per_class)
    quantity = "OOD score minus the threshold of its class" if per_class else "OOD score, higher is more suspicious"
    label = f"{quantity}; at most {result.alpha:.1%} false alarms requested"
    draw_histograms(sets, threshold, label, folder / "scores.png")
    if result.rejection:
        draw_rejection(result.rejection, folder / "rejection.png")
