"""A threshold for each predicted class, what the classes are promised, alone and together, and who falls back to one.

The predicted class is a function of the image, so among the calibration images of one predicted class the scores are
exchangeable with those of future InD images of that class, given how many there are. `fit_threshold` on them alone
therefore promises FPR_k <= alpha for that class ("Mondrian" conformal prediction: Vovk et al. 2005, sec. 4.5; for PAC
bounds Vovk 2012). Let pi_k be the share of class k among InD images, F_k(v) the share of its images above v, and tau
the threshold fitted on all images.

**All at once (PAC).** K + 1 promises are made: one for each class, and one for tau. Each is fitted at delta / (K + 1),
so all hold together with probability at least 1 - delta (Bonferroni), however many classes turn out to have enough
images: which do is seen in the data, and a budget shared among those alone would be chosen by looking.

**A class with too few images** uses tau. It has no promise of its own: of its own images any share may be flagged. All
that is known is the promise of tau, sum over all classes of pi_k F_k(tau) <= alpha.

**All images together.** Let O be the classes with their own threshold and B those that fell back.
  - B empty: FPR = sum_O pi_k F_k(tau_k) <= alpha.
  - O empty: FPR = sum_B pi_k F_k(tau) <= alpha, the plain promise.
  - Both: sum_O pi_k F_k(tau_k) <= alpha * pi(O), and sum_B pi_k F_k(tau) <= min(alpha, pi(B)), as its terms are part
    of tau's sum. So FPR <= alpha * pi(O) + min(alpha, pi(B)) <= 2 alpha, and no better: tau may spend all of its alpha
    on the classes of B while those of O spend theirs anew, at thresholds lower than tau. **Mixing costs the plain
    promise of alpha**; `overall_bound` is the sum of both bounds. Who needs alpha for all images together asks for
    alpha / 2 here, gathers images until no class falls back, or uses tau alone.

With "conformal" the same sums hold for averages over calibration sets, with no delta to share.
"""

from dataclasses import dataclass

import numpy as np

from diffood.calibration.checked import FloatArray, IntArray, checked_classes, checked_scores, require_share
from diffood.calibration.promises.thresholds import Method, Threshold, as_written, fit_threshold, images_required
from diffood.errors import UsageError


@dataclass(frozen=True)
class FellBack:
    """A predicted class that uses the threshold of all images: it has count calibration images of needed."""

    predicted: int
    count: int
    needed: int


@dataclass(frozen=True)
class PerClass:
    """Thresholds by predicted class: flag an image of class k when its score > values[k].

    values: float64 [K]. own: [K], what was fitted for a class and its promise, None where it fell back.
    overall: fitted on all images; the threshold of every class in fell_back, in the order of the classes.
    overall_bound: of the FPR of all images together under this rule, of the kind of the method (see `Threshold`); up to
      2 alpha when some classes fell back and some did not, as the head of this file derives.
    needed: calibration images of a class that its own threshold takes.
    delta: the risk that any promise here fails, of all classes with their own threshold, of overall and of
      overall_bound together; None for "conformal".
    """

    values: FloatArray
    own: tuple[Threshold | None, ...]
    overall: Threshold
    overall_bound: float
    needed: int
    fell_back: tuple[FellBack, ...]
    alpha: float
    delta: float | None


def require_promises(method: Method) -> None:
    """Raise UsageError for a method that has nothing to promise a class."""
    if method not in ("pac", "conformal"):
        raise UsageError(
            f"Thresholds for each class make promises, and {method!r} makes none; choose pac or conformal."
        )


def confidence_of_each(confidence: float, count: int | None) -> float:
    """Confidence of each of the count + 1 promises, with which all hold at once with the one given.

    count: None where classes are promised nothing, and all of it is for the one threshold of all images.
    """
    if count is None:
        return confidence
    return float(1 - (1 - as_written(confidence)) / (count + 1))


def fit_per_class(
    scores: FloatArray, classes: IntArray, count: int, alpha: float, confidence: float, method: Method
) -> PerClass:
    """Threshold for each of count predicted classes, from InD calibration scores [n] and predicted classes [n].

    confidence = 1 - delta is shared by all promises for "pac" and counts for nothing with "conformal"; "quantile"
    promises nothing and is refused. Raises UsageError for unusable scores, classes and values, CalibrationError when
    even all images together are too few.
    """
    require_promises(method)
    require_share("confidence", confidence)
    scores = checked_scores("Calibration scores", scores)
    classes = checked_classes("Predicted classes", classes, scores.size)
    if count < 1 or classes.max() >= count:
        raise UsageError(f"Predicted classes hold the class {classes.max()}; with {count} they end at {count - 1}.")
    of_each = confidence_of_each(confidence, count)
    needed = images_required(alpha, of_each, method)
    overall = fit_threshold(scores, alpha, of_each, method)
    images = np.bincount(classes, minlength=count)
    own = tuple(
        fit_threshold(scores[classes == k], alpha, of_each, method) if images[k] >= needed else None
        for k in range(count)
    )
    bounds = [fitted.bound for fitted in own if fitted is not None]
    fell_back = tuple(FellBack(k, int(images[k]), needed) for k in range(count) if own[k] is None)
    return PerClass(
        values=np.array([(fitted or overall).value for fitted in own]),
        own=own,
        overall=overall,
        overall_bound=max(bounds, default=0.0) + (overall.bound if fell_back else 0.0),
        needed=needed,
        fell_back=fell_back,
        alpha=alpha,
        delta=float(1 - as_written(confidence)) if method == "pac" else None,
    )


def flagged(thresholds: PerClass, scores: FloatArray, classes: IntArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each image is above the threshold of its predicted class, bool [n], from scores [n] and classes [n].

    Raises UsageError for unusable scores and classes.
    """
    scores = checked_scores("Scores", scores)
    classes = checked_classes("Predicted classes", classes, scores.size)
    if classes.max() >= thresholds.values.size:
        raise UsageError(f"Predicted classes hold the class {classes.max()}; {thresholds.values.size} were calibrated.")
    return np.asarray(scores > thresholds.values[classes])
