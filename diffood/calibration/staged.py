"""A rule in stages as one scalar per image, so that the rule is calibrated as a whole; fits no limits, scores nothing.

The rule: J scores, the cheapest first. At stage j < J an image whose score is at most low_j passes as InD and stops;
else one whose score is above high_j is flagged and stops; the others go on. At the last stage an image is flagged when
its score is above tau. The limits come from other data than the calibration images (a first part of a split, say).

**Reduction.** With the limits fixed, everything about an image that the rule sees is a function of the image: where it
stops and the score there. Let t(x) be

    the last score                             when the image reaches the last stage,
    -B (1 + d / (1 + d)),  d = low_j - score   when it passes at stage j,
    +B (1 + e / (1 + e)),  e = score - high_j  when it is flagged at stage j,

with B above the size of any last score. Then for every tau with |tau| < B the image is flagged by the staged rule
exactly when t(x) > tau: a passed image has t <= -B < tau, a flagged one t >= B > tau, and the others are compared by
the last score. So the rule is "flag when t > tau", a member of a nested family in one number.

**Validity.** t is a fixed function, chosen without the calibration images, so t of the calibration images and of
a future InD image are exchangeable, and every promise of `thresholds` for a single score holds for t: fit on t, flag
when t > the threshold. Nothing was assumed of the limits, of the stages' scores or of their dependence.

**Stupid limits** keep the promise and lose something else. Where the limits alone flag more calibration images than may
lie above, the threshold comes out at B or more: then not every image that stops above high_j is flagged, but only those
with t above the threshold. Where the limits let so many pass that all others may be flagged, it comes out at -B or
less, and some of those that passed are flagged. `keeps_limits` tells both; the limits should then be fitted anew, on
other data. Raising a threshold never breaks the promise, so in the second case the last stage may use any tau instead,
and every image that passes stays passed.
"""

from dataclasses import dataclass

import numpy as np

from diffood.calibration.metrics import FloatArray, IntArray
from diffood.errors import UsageError

LARGEST_SCORE = 1e100
"""Last scores must be smaller: far above any score of a network, far below the largest float64 (1.8e308)."""

_BAND = 1e101
"""B of the head of this file: scalars of images that stop early are between B and 2 B in size."""


@dataclass(frozen=True)
class StageLimits:
    """Limits of the stages before the last, J - 1 of each: pass at score <= low, flag at score > high.

    A low of -inf and a high of inf never stop an image. Where low is not below high every image stops, passing first.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise UsageError when the two are not as long as each other or hold NaN."""
        if len(self.low) != len(self.high):
            raise UsageError(f"{len(self.low)} low limits and {len(self.high)} high limits; give one of each a stage.")
        if np.isnan([*self.low, *self.high]).any():
            raise UsageError("A stage limit is NaN; use -inf or inf for a limit that never stops an image.")


def stopped_at(stage_scores: FloatArray, limits: StageLimits) -> IntArray:
    """Stage in 0 ... J - 1 at which each image stops, int64 [n], from scores [n, J].

    Scores of stages after the one where an image stops were never computed; they may be anything, NaN for instance.
    Raises UsageError for scores that are not [n, J] and for a score on the way that is not finite or, at the last
    stage, not below LARGEST_SCORE in size.
    """
    stage_scores = np.asarray(stage_scores, dtype=np.float64)
    stages = len(limits.low) + 1
    if stage_scores.ndim != 2 or stage_scores.shape[1] != stages:
        raise UsageError(f"Stage scores have shape {list(stage_scores.shape)}; expected [n, {stages}], one a stage.")
    stops = np.full(len(stage_scores), stages - 1, dtype=np.int64)
    going = np.ones(len(stage_scores), dtype=bool)
    for stage in range(stages):
        scores = stage_scores[:, stage]
        largest = LARGEST_SCORE if stage == stages - 1 else np.inf
        broken = np.flatnonzero(going & ~(np.abs(scores) < largest))
        if broken.size:
            raise UsageError(
                f"Stage scores hold {scores[broken[0]]} for image {broken[0]} at stage {stage}, which it reaches; "
                "remove the images that cannot be scored."
            )
        if stage < stages - 1:
            here = going & ((scores <= limits.low[stage]) | (scores > limits.high[stage]))
            stops[here] = stage
            going &= ~here
    return stops


def staged_scalar(stage_scores: FloatArray, limits: StageLimits) -> FloatArray:
    """One number per image, float64 [n], from scores [n, J]: flag when it is above a threshold fitted on it.

    See the head of this file for its definition and the proof. Finite for all images. Raises UsageError as
    `stopped_at` does.
    """
    stops = stopped_at(stage_scores, limits)
    scalar = np.take_along_axis(np.asarray(stage_scores, dtype=np.float64), stops[:, None], axis=1)[:, 0]
    for stage, (low, high) in enumerate(zip(limits.low, limits.high, strict=True)):
        here = stops == stage
        passed, flagged = here & (scalar <= low), here & (scalar > low)
        scalar[passed] = -_beyond(low - scalar[passed])
        scalar[flagged] = _beyond(scalar[flagged] - high)
    return scalar


def keeps_limits(threshold: float) -> bool:
    """Whether a threshold fitted on `staged_scalar` leaves the limits as they are, and is the last stage's tau."""
    return abs(threshold) < LARGEST_SCORE


def _beyond(distance: FloatArray) -> FloatArray:
    """B (1 + d / (1 + d)) for distances d >= 0, written so that an infinite one, from an infinite limit, gives 2 B."""
    return _BAND * (2 - 1 / (1 + distance))
