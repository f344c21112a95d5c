"""Fits thresholds on the OOD score and states what each one promises about false alarms.

Not here: scoring, files, detection rates.

Throughout, n calibration scores come from in-distribution (InD) images; a higher score means more out-of-distribution;
an image is flagged when its score is above the threshold; the FPR is the share of all InD images that would be flagged.
The promises hold when future InD images are exchangeable with the calibration images. With tied scores they still hold
and only become safer, because a score that equals the threshold is not flagged.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc, betainccinv

from diffood.calibration.checked import require_share
from diffood.calibration.metrics.formatting import exact_percent
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.method.promises import Method, as_written


@dataclass(frozen=True)
class Threshold:
    """A fitted threshold: flag an image when its score > value.

    What `bound` says about the FPR depends on the method. It is always <= alpha up to rounding; m is `allowed_above`.

    - "pac": with probability >= 1 - delta over the calibration images, FPR <= bound, the 1 - delta quantile of
      Beta(m + 1, n - m).
    - "conformal": averaged over calibration sets, FPR <= bound = (m + 1) / (n + 1), with equality when no scores tie.
      The FPR of this very threshold may be above it; for large n it is in about half of the cases.
    - "quantile": bound = m / n is the share observed on the calibration images. It is no guarantee: for most
      calibration sets the FPR is higher.

    Attributes:
        value: The (allowed_above + 1)-th largest calibration score.
        method: How the threshold was fitted.
        alpha: The requested false-alarm rate, in (0, 1).
        delta: The accepted risk that the calibration images were unlucky, in (0, 1); None unless method is "pac".
        n: Number of calibration scores.
        allowed_above: How many of them may lie above value; ties leave fewer.
        bound: Of the FPR, see above.
    """

    value: float
    method: Method
    alpha: float
    delta: float | None
    n: int
    allowed_above: int
    bound: float


@dataclass(frozen=True)
class Promise:
    """What n calibration images can promise, whatever their scores. The attributes are those of `Threshold`."""

    delta: float | None
    allowed_above: int
    bound: float


def pac_allowed(n: int, alpha: float, delta: float) -> int:
    """The largest number m of n calibration scores above the threshold such that P(FPR <= alpha) >= 1 - delta.

    With m scores above it, FPR ~ Beta(m + 1, n - m) for continuous scores (Wilks 1941; Vovk 2012, "Conditional validity
    of inductive conformal predictors"), so m is the largest with BetaCDF(alpha; m + 1, n - m) >= 1 - delta.
    Found with about log2(n) evaluations.

    Raises:
        CalibrationError: Even m = 0 is not enough; the message has the number of images needed.
        UsageError: alpha or delta is outside (0, 1).
    """
    required = pac_required(alpha, delta)
    if n < required:
        raise CalibrationError(
            f"Too few calibration images: {n} given, at least {required} needed to promise a false-alarm rate of at "
            f"most {exact_percent(alpha)} with confidence {exact_percent(1 - delta)}. Give more in-distribution "
            "images, accept a higher rate or ask for less confidence."
        )
    return bisect_left(range(n), True, lo=1, key=lambda m: _risk(m, n, alpha) > delta) - 1


def pac_required(alpha: float, delta: float, m: int = 0) -> int:
    """The smallest number of calibration images of which m may lie above the threshold of `pac_allowed`.

    For m = 0 this is the smallest n with (1 - alpha)^n <= delta. Raises UsageError when alpha or delta is outside
    (0, 1).
    """
    require_share("alpha", alpha)
    require_share("delta", delta)
    enough = m + 1
    while _risk(m, enough, alpha) > delta:
        enough *= 2
    return bisect_left(range(enough), True, lo=m + 1, key=lambda n: _risk(m, n, alpha) <= delta)


def conformal_allowed(n: int, alpha: float) -> int:
    """The number m of n calibration scores that may lie above the split-conformal threshold.

    That threshold is the calibration score of ascending rank ceil((n + 1)(1 - alpha)) (Vovk et al. 2005; Lei et al.
    2018), so m = n - rank = floor((n + 1) alpha) - 1, and a new InD score is above it with probability at most
    (m + 1) / (n + 1) <= alpha on average over calibration sets. Flagging by it is the same as flagging when the
    p-value (1 + #{calibration scores >= score}) / (n + 1) is at most alpha.

    Raises:
        CalibrationError: The rank is above n; the message has the number of images needed.
        UsageError: alpha is outside (0, 1).
    """
    required = conformal_required(alpha)
    if n < required:
        raise CalibrationError(
            f"Too few calibration images: {n} given, at least {required} needed for a conformal threshold with an "
            f"average false-alarm rate of at most {exact_percent(alpha)}. Give more in-distribution images or accept a "
            "higher rate."
        )
    return math.floor((n + 1) * as_written(alpha)) - 1


def conformal_required(alpha: float) -> int:
    """The smallest number of calibration images with a finite split-conformal threshold: ceil(1 / alpha) - 1.

    Raises UsageError when alpha is outside (0, 1).
    """
    require_share("alpha", alpha)
    return math.ceil(1 / as_written(alpha)) - 1


def images_required(alpha: float, confidence: float, method: Method) -> int:
    """The smallest number of calibration images for which `promise` succeeds. Raises UsageError as `promise` does."""
    require_share("alpha", alpha)
    require_share("confidence", confidence)
    if method == "pac":
        return pac_required(alpha, _delta(confidence))
    if method == "conformal":
        return conformal_required(alpha)
    if method == "quantile":
        return 1
    raise _unknown(method)


def promise(n: int, alpha: float, confidence: float, method: Method) -> Promise:
    """How many of n scores may lie above the threshold, and the bound that follows.

    Raises:
        CalibrationError: n is too small; the message has the number of images needed.
        UsageError: alpha or confidence is outside (0, 1), or the method is unknown.
    """
    require_share("alpha", alpha)
    require_share("confidence", confidence)
    if method == "pac":
        delta = _delta(confidence)
        m = pac_allowed(n, alpha, delta)
        return Promise(delta, m, float(betainccinv(m + 1, n - m, delta)))
    if method == "conformal":
        m = conformal_allowed(n, alpha)
        return Promise(None, m, (m + 1) / (n + 1))
    if method == "quantile":
        if n == 0:
            raise CalibrationError("No calibration images: 0 given, at least 1 needed for an empirical quantile.")
        m = math.floor(n * as_written(alpha))
        return Promise(None, m, m / n)
    raise _unknown(method)


def fit_threshold(scores: npt.NDArray[np.float64], alpha: float, confidence: float, method: Method) -> Threshold:
    """Fit a threshold for a false-alarm rate of alpha. `Threshold` says what each method promises.

    Args:
        scores: Of in-distribution calibration images, float64 [n].
        alpha: Requested false-alarm rate, in (0, 1).
        confidence: 1 - delta, in (0, 1); used by "pac" only.
        method: "quantile" lets floor(n alpha) scores lie above and promises nothing.

    Raises:
        CalibrationError: Scores are not finite, or too few.
        UsageError: alpha or confidence is outside (0, 1), the method is unknown, or the array is not [n].
    """
    require_share("alpha", alpha)
    require_share("confidence", confidence)
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1:
        raise UsageError(f"Calibration scores have shape {list(scores.shape)}; expected [n], one score per image.")
    broken = np.flatnonzero(~np.isfinite(scores))
    if broken.size:
        raise CalibrationError(
            f"{broken.size} of {scores.size} calibration scores are not finite, the first is {scores[broken[0]]} at "
            f"position {broken[0]}. Remove the images that cannot be scored, or repair the model that scores them."
        )
    n = int(scores.size)
    promised = promise(n, alpha, confidence, method)
    rank = n - 1 - promised.allowed_above
    value = float(np.partition(scores, rank)[rank])
    return Threshold(value, method, alpha, promised.delta, n, promised.allowed_above, promised.bound)


def _delta(confidence: float) -> float:
    return float(1 - as_written(confidence))


def _unknown(method: str) -> UsageError:
    return UsageError(f"Unknown threshold method {method!r}; choose pac, conformal or quantile.")


def _risk(m: int, n: int, alpha: float) -> float:
    """P(FPR > alpha) for FPR ~ Beta(m + 1, n - m); rises with m, falls with n.

    The upper tail is computed directly, since 1 - BetaCDF would lose the digits of a small delta.
    """
    return float(betaincc(m + 1, n - m, alpha))
