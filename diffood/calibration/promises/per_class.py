"""Fits one threshold per predicted class, and states what each class and all classes together are promised.

The predicted class is a function of the image, so among the calibration images of one predicted class the scores are
exchangeable with those of future InD images of that class, given how many there are. `fit_threshold` on them alone
therefore promises FPR_k <= alpha for that class (the literature calls this Mondrian conformal prediction: Vovk et al.
2005, sec. 4.5; for PAC bounds Vovk 2012). Let pi_k be the share of class k among InD images, F_k(v) the share of its
images above v, and tau the threshold fitted on all images.

**All at once (PAC).** K + 1 promises are made: one per class, and one for tau. Each is fitted at delta / (K + 1), so
all hold together with probability at least 1 - delta (Bonferroni), however many classes turn out to have enough images.
Which classes do is visible only in the data; sharing delta among those alone would be a choice made after looking.

**A class with too few images** uses tau. It has no promise of its own: any share of its images may be flagged. All that
is known is the promise of tau, sum over all classes of pi_k F_k(tau) <= alpha.

**All images together.** Let O be the classes with their own threshold and B those that fell back.
  - B empty: FPR = sum_O pi_k F_k(tau_k) <= alpha.
  - O empty: FPR = sum_B pi_k F_k(tau) <= alpha, the plain promise.
  - Both: sum_O pi_k F_k(tau_k) <= alpha * pi(O), and sum_B pi_k F_k(tau) <= min(alpha, pi(B)), as its terms are part
    of tau's sum. So FPR <= alpha * pi(O) + min(alpha, pi(B)) <= 2 alpha, and no better: tau may spend all of its alpha
    on the classes of B while those of O spend theirs again, at thresholds lower than tau. **Mixing costs the plain
    promise of alpha**; `overall_bound` is the sum of both bounds. Whoever needs alpha for all images together asks for
    alpha / 2 here, gathers images until no class falls back, or uses tau alone.

With "conformal" the same sums hold for averages over calibration sets, with no delta to share.
"""

from dataclasses import dataclass

import numpy as np

from diffood.calibration.checked import FloatArray, IntArray, checked_classes, checked_scores, require_share
from diffood.calibration.promises.thresholds import Threshold, fit_threshold, images_required
from diffood.errors import UsageError
from diffood.runtime.method.promises import Method, as_written


@dataclass(frozen=True)
class FallbackClass:
    """A predicted class that uses the threshold of all images, since it has `count` of the `needed` images."""

    predicted: int
    count: int
    needed: int


@dataclass(frozen=True)
class PerClassThresholds:
    """Thresholds by predicted class: flag an image of class k when its score > values[k].

    Attributes:
        values: float64 [K].
        own: What was fitted for each class and its promise, [K]; None where the class fell back.
        overall: Fitted on all images; the threshold of every class in fell_back.
        overall_bound: Of the FPR of all images together under this rule, of the kind of the method (see `Threshold`).
            Up to 2 alpha when some classes fell back and some did not, as the head of this file derives.
        needed: Calibration images of a class that a threshold of its own requires.
        fell_back: In the order of the classes.
        alpha: The requested false-alarm rate.
        delta: The risk that any promise here fails, of all classes with their own threshold, of overall and of
            overall_bound together; None for "conformal".
    """

    values: FloatArray
    own: tuple[Threshold | None, ...]
    overall: Threshold
    overall_bound: float
    needed: int
    fell_back: tuple[FallbackClass, ...]
    alpha: float
    delta: float | None


def require_promises(method: Method) -> None:
    """Raise UsageError for a method that promises nothing, and so nothing to a class."""
    if method not in ("pac", "conformal"):
        raise UsageError(
            f"Per-class thresholds need a method with a promise, {method!r} has none: choose pac or conformal."
        )


def confidence_per_promise(confidence: float, count: int | None) -> float:
    """The confidence that each of count + 1 promises needs for all to hold at once with the given confidence.

    Args:
        confidence: That all promises hold, in (0, 1).
        count: Number of predicted classes; None where there is only the threshold of all images.
    """
    if count is None:
        return confidence
    return float(1 - (1 - as_written(confidence)) / (count + 1))


def fit_per_class(
    scores: FloatArray, classes: IntArray, count: int, alpha: float, confidence: float, method: Method
) -> PerClassThresholds:
    """Fit one threshold per predicted class.

    Args:
        scores: Of in-distribution calibration images, float64 [n].
        classes: Their predicted classes, int64 [n], from 0.
        count: Number of classes the classifier has.
        alpha: Requested false-alarm rate, in (0, 1).
        confidence: 1 - delta; shared by all promises for "pac", unused by "conformal".
        method: "quantile" promises nothing and is refused.

    Raises:
        UsageError: Scores, classes or values are unusable.
        CalibrationError: Even all images together are too few.
    """
    require_promises(method)
    require_share("confidence", confidence)
    scores = checked_scores("Calibration scores", scores)
    classes = checked_classes("Predicted classes", classes, scores.size)
    if count < 1 or classes.max() >= count:
        raise UsageError(
            f"Predicted class {classes.max()} does not exist; {count} classes are numbered 0 to {count - 1}."
        )
    per_promise = confidence_per_promise(confidence, count)
    needed = images_required(alpha, per_promise, method)
    overall = fit_threshold(scores, alpha, per_promise, method)
    images = np.bincount(classes, minlength=count)
    own = tuple(
        fit_threshold(scores[classes == k], alpha, per_promise, method) if images[k] >= needed else None
        for k in range(count)
    )
    bounds = [fitted.bound for fitted in own if fitted is not None]
    fell_back = tuple(FallbackClass(k, int(images[k]), needed) for k in range(count) if own[k] is None)
    return PerClassThresholds(
        values=np.array([(fitted or overall).value for fitted in own]),
        own=own,
        overall=overall,
        overall_bound=max(bounds, default=0.0) + (overall.bound if fell_back else 0.0),
        needed=needed,
        fell_back=fell_back,
        alpha=alpha,
        delta=float(1 - as_written(confidence)) if method == "pac" else None,
    )
