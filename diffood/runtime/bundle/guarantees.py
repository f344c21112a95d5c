"""Writes what thresholds promise as sentences for users: stored in calibration.json, and compared when it is read."""

from collections.abc import Sequence

from diffood.runtime.method.promises import Method

MOST_NAMED = 12  # classes named in a sentence; a classifier may have a thousand

Fallback = tuple[int, int, int]
"""A predicted class without a threshold of its own: its index, its images, and how many it needs."""


def describe_promise(method: Method, alpha: float, delta: float | None, n: int, bound: float) -> str:
    """What one threshold for all images promises."""
    if method == "pac":
        assert delta is not None
        return (
            f"With {1 - delta:.1%} confidence, at most {bound:.2%} of in-distribution images like these {n} are "
            f"flagged (asked for: {alpha:.2%})."
        )
    if method == "conformal":
        return (
            f"On average over calibration sets of {n} images, {bound:.2%} of in-distribution images are flagged "
            f"(asked for: {alpha:.2%}); this one threshold may do worse."
        )
    return f"{bound:.2%} of the {n} calibration images lie above; this guarantees nothing for others."


def describe_band(confidence: float, threshold: float, bound: float, n: int, own: int, asked: float | None) -> str:
    """What thresholds chosen when serving promise, by the bounds of every threshold at once.

    Args:
        confidence: Of all these bounds together.
        threshold: Of all images.
        bound: Of the false-alarm rate of all images together.
        n: Calibration images.
        own: Classes with thresholds of their own.
        asked: The rate asked for; None where the threshold was.
    """
    when = f"With {confidence:.1%} confidence for every threshold at once"
    flagged = f"at most {bound:.2%} of in-distribution images like these {n} are flagged"
    if own:
        return f"{when} and {own} classes, {flagged} at thresholds for {asked or bound:.2%}."
    return f"{when}, {flagged} at {threshold:.6g}" + (f" (asked for: {asked:.2%})." if asked is not None else ".")


def describe_class_promises(
    alpha: float,
    delta: float | None,
    overall_bound: float,
    bounds: Sequence[float],
    fell_back: Sequence[Fallback],
    names: Sequence[str],
) -> str:
    """What per-class thresholds promise, each and together, and to which classes they promise nothing.

    Args:
        alpha: Allowed false-alarm rate.
        delta: 1 minus the confidence of all of this at once; None for "conformal".
        overall_bound: Of the rate of all images together.
        bounds: Of the classes that have their own threshold.
        fell_back: The other classes.
        names: Of all classes.
    """
    if not bounds:
        return f"{_all_together(alpha, delta, overall_bound)} {_fell_back(fell_back, names)}"
    asked = f"(asked for: {alpha:.2%})"
    when, end = _condition(delta)
    if not fell_back:
        return (
            f"{when}, at most {max(bounds):.2%} of in-distribution images of any of the {len(bounds)} predicted "
            f"classes are flagged {asked}, and so of all together{end}."
        )
    return (
        f"{when}, at most {max(bounds):.2%} of in-distribution images of each predicted class with its own threshold "
        f"({len(bounds)} of {len(names)}) are flagged {asked}, and at most {overall_bound:.2%} of all together{end}. "
        f"{_fell_back(fell_back, names)}"
    )


def _condition(delta: float | None) -> tuple[str, str]:
    if delta is None:
        return "On average over calibration sets", "; this one calibration may do worse"
    return f"With {1 - delta:.1%} confidence for all of this at once", ""


def _all_together(alpha: float, delta: float | None, overall_bound: float) -> str:
    when, end = _condition(delta)
    return f"{when}, at most {overall_bound:.2%} of in-distribution images are flagged (asked for: {alpha:.2%}){end}."


def _fell_back(fell_back: Sequence[Fallback], names: Sequence[str]) -> str:
    named = [f"{names[predicted]} ({count} of {needed})" for predicted, count, needed in fell_back[:MOST_NAMED]]
    if len(fell_back) > MOST_NAMED:
        named.append(f"{len(fell_back) - MOST_NAMED} more")
    return (
        "Too few calibration images for thresholds of their own, so they use that of all images and are promised "
        f"nothing by themselves: {', '.join(named)}."
    )
