"""Bounds the share of OOD images that is flagged, from labelled examples, and says what a wanted share would take.

The threshold is fitted on in-distribution images alone, so the examples are independent of it: of N exchangeable OOD
images the number flagged is binomial, and Clopper and Pearson's lower end bounds the share. A lower threshold flags
more of both kinds, so the threshold that just keeps the false-alarm rate is the best one there is for detection.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from scipy.special import betainccinv

from diffood.calibration.checked import FloatArray, require_share
from diffood.calibration.scored_files import ScoredFiles, describe_unusable
from diffood.errors import UsageError
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.detection import MOST_EXAMPLES, DetectionRecord, lowest_share
from diffood.runtime.decision import DecisionRule
from diffood.runtime.method.promises import as_written


@dataclass(frozen=True)
class DetectionGoal:
    """Whether a share of OOD images that was asked for is detected, and what it would take.

    Attributes:
        asked: The share.
        holds: Whether the bound reaches it at the calibrated threshold.
        examples: OOD examples in all that would be enough if the same share of them were flagged; None where no number
            is, since too few are flagged at this threshold.
        fpr: The lowest bound of the false-alarm rate, of a threshold at which the examples given do reach the share;
            None where they are too few for any threshold.
        threshold: That threshold.
    """

    asked: float
    holds: bool
    examples: int | None
    fpr: float | None
    threshold: float | None


def judge_examples(
    calibration: Calibration, ind: FloatArray, ood: ScoredFiles, confidence: float, asked: float | None
) -> tuple[DetectionRecord, DetectionGoal | None]:
    """What a calibration's thresholds detect of labelled OOD examples, and what a share asked for would take.

    Args:
        calibration: Fitted on in-distribution images alone.
        ind: Scores of these, float64 [n].
        ood: The examples. An image without a finite score counts as flagged, as when it is served.
        confidence: Of the bound.
        asked: The share; None for no question.

    Raises:
        UsageError: No example was scored, or too many.
    """
    if not len(ood.scores):
        raise UsageError(describe_unusable("--ood-examples", ood.set_aside))
    if len(ood.scores) > MOST_EXAMPLES:
        raise UsageError(
            f"{len(ood.scores)} OOD examples are more than the {MOST_EXAMPLES} that a bound takes: give fewer."
        )
    flagged = int(DecisionRule.of(calibration).decide(ood.scores, ood.predicted).is_ood.sum())
    found = bound_detection(flagged, len(ood.scores), confidence)
    scores = np.where(np.isfinite(ood.scores), ood.scores, np.inf)
    return found, None if asked is None else seek_detection(asked, found, ind, scores)


def bound_detection(flagged: int, images: int, confidence: float) -> DetectionRecord:
    """The record of so many OOD examples flagged."""
    delta = float(1 - as_written(confidence))
    return DetectionRecord(images=images, flagged=flagged, delta=delta, bound=lowest_share(flagged, images, delta))


def seek_detection(asked: float, found: DetectionRecord, ind: FloatArray, ood: FloatArray) -> DetectionGoal:
    """What it would take to detect the share asked for.

    Args:
        asked: In (0, 1).
        found: At the calibrated threshold.
        ind: Calibration scores, float64 [n], finite.
        ood: Scores of the OOD examples, float64 [N]; inf where a model gave no finite value.
    """
    require_share("--detect", asked)
    missed = _most_missed(found.images, asked, found.delta)
    fpr = threshold = None
    if missed is not None:
        # the examples are independent of the in-distribution images, so one bound of the rate is enough
        threshold = float(np.nextafter(np.sort(ood)[missed], -np.inf))
        above = int((ind > threshold).sum())
        fpr = float(betainccinv(above + 1, len(ind) - above, found.delta)) if above < len(ind) else 1.0
    return DetectionGoal(asked, found.bound >= asked, _enough(asked, found), fpr, threshold)


def _most_missed(images: int, asked: float, delta: float) -> int | None:
    """The most examples that may be missed; None where not even none may."""
    enough = bisect_left(range(images + 1), True, key=lambda k: lowest_share(k, images, delta) >= asked)
    return images - enough if enough <= images else None


def _enough(asked: float, found: DetectionRecord) -> int | None:
    share = found.flagged / found.images
    if share <= asked:
        return None
    few, many = 0, found.images
    while lowest_share(int(share * many), many, found.delta) < asked:
        few, many = many, 2 * many
        if many > MOST_EXAMPLES:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        reached = middle and lowest_share(int(share * middle), middle, found.delta) >= asked
        few, many = (few, middle) if reached else (middle, many)
    return many
