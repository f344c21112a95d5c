"""How far a threshold could move if some calibration images were OOD after all: bounds, not estimates; removes nothing.

Let at most k of n calibration images be OOD, no matter which, and let the rule allow m' of n - k scores above. Fitted
on the clean images alone the threshold is the (m' + 1)-th largest of their n - k scores. Leaving out any score moves
the order statistics down by at most one place, most when it is the highest and least when it is the lowest. So the
clean threshold lies between the two refits without the k highest and without the k lowest scores.

OOD images among the highest scores are the usual case. They leave the promise about false alarms intact, with room to
spare, and cost detection: the threshold is too high. OOD images that score like the lowest break the promise instead,
since they make the quiet images look more common than they are.
"""

import math
from dataclasses import dataclass

import numpy as np

from diffood.calibration.checked import FloatArray, IntArray, checked_scores, require_share
from diffood.calibration.promises.thresholds import Method, as_written, fit_threshold
from diffood.errors import UsageError

SHARES = (0.01, 0.05)
"""Shares of wrong images to ask about: label errors of test sets are 3.3 % on average (Northcutt et al. 2021)."""


@dataclass(frozen=True)
class Contamination:
    """What holds if at most a share of the calibration images, removed of them, were OOD.

    threshold: refitted without the removed highest scores: the lowest that the clean images could have given; and
      shift = threshold - the one fitted on all, at most 0, since one image more allows at most one more above.
    highest_threshold: refitted without the removed lowest scores: the highest that the clean images could have given.
    flagged_now, flagged_refitted: shares of the scores left, without the highest, above the threshold fitted on all
      and above the refitted one. The first says how few alarms the present threshold would then really raise.
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
    """A calibration image that a user should look at."""

    id: str
    score: float
    predicted_class: int


def askable_shares(n: int, needed: int, shares: tuple[float, ...] = SHARES) -> tuple[float, ...]:
    """The shares that are at least one of n images and leave the number needed to fit a threshold on."""
    removed = {share: math.floor(n * as_written(share)) for share in shares}
    return tuple(share for share in shares if removed[share] and n - removed[share] >= needed)


def contamination(
    scores: FloatArray,
    alpha: float,
    confidence: float,
    method: Method,
    shares: tuple[float, ...] = SHARES,
) -> tuple[Contamination, ...]:
    """One row for each share c, with floor(c n) of the calibration scores [n] removed.

    Raises UsageError for unusable scores and shares outside (0, 1), CalibrationError where too few images are left.
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
    """Positions [k] of the k highest scores [n], the highest first, equal ones in their order: images to look at.

    Raises UsageError for unusable scores and unless 0 <= k <= n.
    """
    scores = checked_scores("Calibration scores", scores)
    if not 0 <= k <= scores.size:
        raise UsageError(f"{k} most suspicious of {scores.size} images asked for; ask for 0 to {scores.size}.")
    return np.argsort(-scores, kind="stable")[:k].astype(np.int64)
