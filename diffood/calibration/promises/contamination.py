"""Bounds how far a threshold could move if some calibration images were OOD after all; removes no image.

Let at most k of n calibration images be OOD, no matter which, and let the rule allow m' of n - k scores above. Fitted
on the clean images alone the threshold is the (m' + 1)-th largest of their n - k scores. Leaving out any score moves
the order statistics down by at most one place, most when it is the highest and least when it is the lowest. So the
clean threshold lies between the two refits without the k highest and without the k lowest scores. These are bounds, not
estimates.

OOD images among the highest scores are the usual case. They leave the promise about false alarms intact, with room to
spare, and cost detection: the threshold is too high. OOD images with low scores break the promise instead, since they
make low scores look more common than they are.
"""

import math
from dataclasses import dataclass

import numpy as np

from diffood.calibration.checked import FloatArray, IntArray, checked_scores, require_share
from diffood.calibration.promises.thresholds import fit_threshold
from diffood.errors import UsageError
from diffood.runtime.method.promises import Method, as_written

SHARES = (0.01, 0.05)
"""Shares of wrong images to ask about: label errors of test sets are 3.3 % on average (Northcutt et al. 2021)."""


@dataclass(frozen=True)
class Contamination:
    """What holds if at most a share of the calibration images were OOD.

    Attributes:
        share: Of the calibration images.
        removed: Number of images in that share.
        threshold: Refitted without the `removed` highest scores: the lowest that the clean images could have given.
        shift: threshold - the one fitted on all; at most 0, since one image more allows at most one more above.
        highest_threshold: Refitted without the `removed` lowest scores: the highest that the clean images could have
            given.
        flagged_now: Share of the other scores (without the highest) above the threshold fitted on all: how few alarms
            the present threshold would then really raise.
        flagged_refitted: Share of the same scores above the refitted threshold.
    """

    share: float
    removed: int
    threshold: float
    shift: float
    highest_threshold: float
    flagged_now: float
    flagged_refitted: float


@dataclass(frozen=True)
class Suspect:
    """A calibration image that a user should inspect."""

    id: str
    score: float
    predicted_class: int


def usable_shares(n: int, needed: int, shares: tuple[float, ...] = SHARES) -> tuple[float, ...]:
    """The shares that are at least one of n images and leave the `needed` images to fit a threshold on."""
    removed = {share: math.floor(n * as_written(share)) for share in shares}
    return tuple(share for share in shares if removed[share] and n - removed[share] >= needed)


def assess_contamination(
    scores: FloatArray,
    alpha: float,
    confidence: float,
    method: Method,
    shares: tuple[float, ...] = SHARES,
) -> tuple[Contamination, ...]:
    """Refit the threshold with floor(c n) of the calibration scores [n] removed, for each share c.

    Raises:
        UsageError: Scores are unusable, or a share is outside (0, 1).
        CalibrationError: Too few images are left.
    """
    scores = np.sort(checked_scores("Calibration scores", scores))
    fitted = fit_threshold(scores, alpha, confidence, method).value
    rows = []
    for share in shares:
        require_share("share", share)
        removed = math.floor(scores.size * as_written(share))
        left = scores[: scores.size - removed]
        lowest = fit_threshold(left, alpha, confidence, method).value
        rows.append(
            Contamination(
                share=share,
                removed=removed,
                threshold=lowest,
                shift=lowest - fitted,
                highest_threshold=fit_threshold(scores[removed:], alpha, confidence, method).value,
                flagged_now=float(np.mean(left > fitted)),
                flagged_refitted=float(np.mean(left > lowest)),
            )
        )
    return tuple(rows)


def most_suspicious(scores: FloatArray, k: int) -> IntArray:
    """Positions int64 [k] of the k highest of n scores, the highest first, equal ones in their order.

    Raises UsageError for unusable scores and unless 0 <= k <= n.
    """
    scores = checked_scores("Calibration scores", scores)
    if not 0 <= k <= scores.size:
        raise UsageError(f"k is {k}; of {scores.size} images, 0 to {scores.size} can be listed.")
    return np.argsort(-scores, kind="stable")[:k].astype(np.int64)
