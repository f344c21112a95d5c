"""Writes what fitted thresholds promise as sentences for users. They are stored in calibration.json."""

from collections.abc import Sequence

from diffood.calibration.promises.per_class import PerClassThresholds
from diffood.calibration.promises.thresholds import Threshold

MOST_NAMED = 12  # classes named in a sentence; a classifier may have a thousand


def guarantee(threshold: Threshold) -> str:
    """What one threshold for all images promises."""
    if threshold.method == "pac":
        assert threshold.delta is not None
        return (
            f"With {1 - threshold.delta:.1%} confidence, at most {threshold.bound:.2%} of in-distribution images like "
            f"these {threshold.n} are flagged (asked for: {threshold.alpha:.2%})."
        )
    if threshold.method == "conformal":
        return (
            f"On average over calibration sets of {threshold.n} images, {threshold.bound:.2%} of in-distribution "
            f"images are flagged (asked for: {threshold.alpha:.2%}); this one threshold may do worse."
        )
    return (
        f"{threshold.bound:.2%} of the {threshold.n} calibration images lie above; this guarantees nothing for others."
    )


def guarantee_per_class(fitted: PerClassThresholds, names: Sequence[str]) -> str:
    """What per-class thresholds promise, each and together, and to which classes they promise nothing."""
    own = [threshold for threshold in fitted.own if threshold is not None]
    if not own:
        return f"{_all_together(fitted)} {_fell_back(fitted, names)}"
    asked = f"(asked for: {fitted.alpha:.2%})"
    largest = max(threshold.bound for threshold in own)
    when, end = _condition(fitted)
    if not fitted.fell_back:
        return (
            f"{when}, at most {largest:.2%} of in-distribution images of any of the {len(own)} predicted classes are "
            f"flagged {asked}, and so of all together{end}."
        )
    return (
        f"{when}, at most {largest:.2%} of in-distribution images of each predicted class with its own threshold "
        f"({len(own)} of {len(fitted.own)}) are flagged {asked}, and at most {fitted.overall_bound:.2%} of all "
        f"together{end}. {_fell_back(fitted, names)}"
    )


def _condition(fitted: PerClassThresholds) -> tuple[str, str]:
    if fitted.delta is None:
        return "On average over calibration sets", "; this one calibration may do worse"
    return f"With {1 - fitted.delta:.1%} confidence for all of this at once", ""


def _all_together(fitted: PerClassThresholds) -> str:
    when, end = _condition(fitted)
    return (
        f"{when}, at most {fitted.overall_bound:.2%} of in-distribution images are flagged "
        f"(asked for: {fitted.alpha:.2%}){end}."
    )


def _fell_back(fitted: PerClassThresholds, names: Sequence[str]) -> str:
    named = [f"{names[row.predicted]} ({row.count} of {row.needed})" for row in fitted.fell_back[:MOST_NAMED]]
    if len(fitted.fell_back) > MOST_NAMED:
        named.append(f"{len(fitted.fell_back) - MOST_NAMED} more")
    return (
        "Too few calibration images for thresholds of their own, so they use that of all images and are promised "
        f"nothing by themselves: {', '.join(named)}."
    )
