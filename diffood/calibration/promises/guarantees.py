"""Says in sentences what fitted thresholds promise; `runtime.bundle.guarantees` has the words."""

from collections.abc import Sequence

from diffood.calibration.promises.per_class import PerClassThresholds
from diffood.calibration.promises.thresholds import Threshold
from diffood.runtime.bundle.guarantees import describe_class_promises, describe_promise


def guarantee(threshold: Threshold) -> str:
    """What one threshold for all images promises."""
    return describe_promise(threshold.method, threshold.alpha, threshold.delta, threshold.n, threshold.bound)


def guarantee_per_class(fitted: PerClassThresholds, names: Sequence[str]) -> str:
    """What per-class thresholds promise, each and together, and to which classes they promise nothing."""
    return describe_class_promises(
        fitted.alpha,
        fitted.delta,
        fitted.overall_bound,
        [threshold.bound for threshold in fitted.own if threshold is not None],
        [(row.predicted, row.count, row.needed) for row in fitted.fell_back],
        names,
    )
