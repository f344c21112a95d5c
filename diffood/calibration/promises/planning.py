"""How many calibration images a promise takes, and what numbers of them promise; scores nothing and opens nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffood.calibration.fusing.fusing import FEWEST_FITTED, fitted_count, fused_required
from diffood.calibration.promises.per_class import confidence_of_each, require_promises
from diffood.calibration.promises.thresholds import Method, images_required, promise
from diffood.errors import UsageError

MULTIPLES = (1, 2, 5, 10)
"""Of the number needed, to show what more images bring, where no numbers are asked about."""


@dataclass(frozen=True)
class Outlook:
    """What n images in all give: how many are left to calibrate on, how many of those may lie above the threshold.

    bound: of the kind of the method (see `thresholds.Threshold`). It and allowed_above are None where n is too few.
    """

    n: int
    calibrated: int
    allowed_above: int | None
    bound: float | None


@dataclass(frozen=True)
class ImagePlan:
    """How many images a calibration takes.

    needed: to calibrate on; fitted: others that a fused plan's fusion is fitted on, else 0; total: enough for both.
    classes: None, or the number of predicted classes of which each takes `needed` images for a threshold of its own.
    """

    method: Method
    alpha: float
    confidence: float
    needed: int
    fitted: int
    total: int
    classes: int | None
    outlooks: tuple[Outlook, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def plan_images(
    alpha: float,
    confidence: float,
    method: Method,
    *,
    fused: bool,
    classes: int | None = None,
    counts: Sequence[int] = (),
) -> ImagePlan:
    """What a calibration takes and what `counts` images in all would give; without counts, multiples of what it takes.

    classes: the number of predicted classes where each is to have its own threshold; the confidence is then shared, and
    the outlooks are of the threshold of all images. Raises UsageError for unusable values.
    """
    if classes is not None:
        require_promises(method)
    of_each = confidence_of_each(confidence, classes)
    needed = images_required(alpha, of_each, method)
    total = fused_required(needed) if fused else needed
    if refused := [n for n in counts if n < 1]:
        raise UsageError(f"What {refused[0]} images give cannot be said; ask about 1 or more.")
    asked = counts or [multiple * total for multiple in MULTIPLES]
    return ImagePlan(
        method=method,
        alpha=alpha,
        confidence=confidence,
        needed=needed,
        fitted=fitted_count(total) if fused else 0,
        total=total,
        classes=classes,
        outlooks=tuple(_outlook(n, needed, alpha, of_each, method, fused=fused) for n in asked),
    )


def _outlook(n: int, needed: int, alpha: float, confidence: float, method: Method, *, fused: bool) -> Outlook:
    fitted = fitted_count(n) if fused else 0
    if n - fitted < needed or (fused and fitted < FEWEST_FITTED):
        return Outlook(n, n - fitted, None, None)
    made = promise(n - fitted, alpha, confidence, method)
    return Outlook(n, n - fitted, made.allowed_above, made.bound)
