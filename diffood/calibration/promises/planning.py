"""Plans a calibration: how many images a promise needs, and what a number of images can promise. Opens no file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffood.calibration.fusing.split import FEWEST_FITTED, fitted_count, fused_required
from diffood.calibration.promises.per_class import confidence_per_promise, require_promises
from diffood.calibration.promises.thresholds import images_required, promise
from diffood.errors import UsageError
from diffood.runtime.method.promises import Method

MULTIPLES = (1, 2, 5, 10)
"""Of the number needed, shown where the user gives no counts."""


@dataclass(frozen=True)
class Outlook:
    """What a number of images can promise.

    Attributes:
        n: Images in all.
        calibrated: Images left for the threshold, without those a fusion is fitted on.
        allowed_above: How many of those may lie above the threshold; None where they are too few.
        bound: Of the FPR, of the kind of the method (see `thresholds.Threshold`); None where they are too few.
    """

    n: int
    calibrated: int
    allowed_above: int | None
    bound: float | None


@dataclass(frozen=True)
class ImagePlan:
    """How many images a calibration needs.

    Attributes:
        method: See `thresholds.Threshold`.
        alpha: Requested false-alarm rate.
        confidence: Requested confidence, of all promises together.
        needed: Images for the threshold.
        fitted: Other images, for the fusion of a fused plan; else 0.
        total: Enough for both.
        classes: Number of predicted classes where each is to have its own threshold, which needs `needed` images of
            that class; else None.
        outlooks: One per count asked about.
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
        """Plain values for JSON."""
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
    """Say how many images a calibration needs and what other numbers of images would promise.

    Args:
        alpha: Requested false-alarm rate, in (0, 1).
        confidence: Requested confidence, in (0, 1).
        method: See `thresholds.Threshold`.
        fused: Whether the plan fuses witnesses, which takes images of its own.
        classes: Number of predicted classes where each is to have its own threshold. The confidence is then shared,
            and the outlooks are those of the threshold of all images.
        counts: Numbers of images to ask about; empty: MULTIPLES of the number needed.

    Raises:
        UsageError: Values are unusable.
    """
    if classes is not None:
        require_promises(method)
    per_promise = confidence_per_promise(confidence, classes)
    needed = images_required(alpha, per_promise, method)
    total = fused_required(needed) if fused else needed
    if refused := [n for n in counts if n < 1]:
        raise UsageError(f"{refused[0]} images cannot be calibrated on; ask about 1 or more.")
    counts = counts or [multiple * total for multiple in MULTIPLES]
    return ImagePlan(
        method=method,
        alpha=alpha,
        confidence=confidence,
        needed=needed,
        fitted=fitted_count(total) if fused else 0,
        total=total,
        classes=classes,
        outlooks=tuple(_outlook(n, needed, alpha, per_promise, method, fused=fused) for n in counts),
    )


def _outlook(n: int, needed: int, alpha: float, confidence: float, method: Method, *, fused: bool) -> Outlook:
    fitted = fitted_count(n) if fused else 0
    if n - fitted < needed or (fused and fitted < FEWEST_FITTED):
        return Outlook(n, n - fitted, None, None)
    promised = promise(n - fitted, alpha, confidence, method)
    return Outlook(n, n - fitted, promised.allowed_above, promised.bound)
