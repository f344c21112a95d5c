"""What `diffood feedback` and `calibrate --from-feedback` print, in lines. Print nothing themselves."""

from typing import TYPE_CHECKING

from diffood.calibration.metrics.formatting import percent

if TYPE_CHECKING:
    from diffood.calibration.feedback.feedback import FeedbackReport, RateBounds
    from diffood.calibration.feedback.recalibrate import Recalibrated


def describe_feedback(report: "FeedbackReport") -> list[str]:
    """Lines that say what was drawn and answered, what follows, and whether the certificate holds."""
    lines = [
        f"rows        {report.rows} read; {report.drawn} drawn for labelling so far, {report.new} of them now",
        f"answers     {report.answered} of {report.drawn}",
    ]
    if report.not_drawn:
        lines.append(
            f"left out    {report.not_drawn} labels of rows that were not drawn: nobody knows why these were chosen"
        )
    return [
        *lines,
        _describe_rate("alarms", "of in-distribution images are flagged", report.false_alarms, report.confidence),
        _describe_rate("passed", "of what passed is OOD", report.passed_ood, report.confidence),
        f"certificate {report.certificate}{f': {report.withdrawn}' if report.withdrawn else ''}",
        f"record      {report.path}",
    ]


def _describe_rate(title: str, what: str, bounds: "RateBounds", confidence: float) -> str:
    if bounds.estimate is None:
        return f"{title:<11} no answers that tell how many {what}"
    limit = "" if bounds.limit is None else f"; limit {percent(bounds.limit)}"
    return (
        f"{title:<11} {percent(bounds.estimate)} {what}, {percent(bounds.lower)} to {percent(bounds.upper)} at any"
        f" time with {percent(confidence)} confidence ({bounds.labels} answers{limit})"
    )


def describe_recalibrated(done: "Recalibrated") -> list[str]:
    """Lines that say what was fitted on which rows."""
    found = done.calibration
    kept = f"; the one before is kept as {done.replaced}" if done.replaced else ""
    return [
        f"labels      {done.labelled} in-distribution rows, {found.n} of them a uniform sample",
        f"threshold   {found.threshold:.6f}, before {done.old_threshold:.6f}",
        f"guarantee   {found.guarantee}",
        *([f"detection   {found.detection.statement}"] if found.detection else []),
        f"wrote       {done.path}{kept}",
    ]
