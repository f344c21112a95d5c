"""Fits the limits of stages, and scores images whose every stage was measured by a whole rule.

The rule: scores of J stages, the cheapest first. After stage j < J an image whose score there is <= low_j or > high_j
ends; the others go on, and those that reach the last stage end there. The score of an image is that of the stage at
which it ended, and it is flagged when that is above one threshold, whatever the stage.

**Validity.** With the limits fixed, where an image ends and the score there are a function of the image alone: nothing
of other images, and nothing random, enters. The limits come from other images than the threshold (see `split`), so the
scores of calibration images and of a future in-distribution image are exchangeable, and every promise of `thresholds`
for a single score holds for this one: it is calibrated and served as a whole. Nothing is assumed about the limits, the
scores of the stages or their dependence.

**Poor limits** keep the promise and cost time or detection: a low limit above the threshold flags images that later
repeats might have cleared, a high limit below it passes images that later repeats might have flagged.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from diffood.calibration.fusing.witnesses import fit_witnesses
from diffood.runtime.bundle.fusion import StageRule
from diffood.runtime.method.fusion import FittedWitness, fuse
from diffood.runtime.method.plan import Combination
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.definition import INSIDE
from diffood.runtime.method.witnesses.registry import Witness

PASSED = 0.5  # share of in-distribution images that end at a stage; docs/detection.md says what 0.8 would cost


def fit_stage(repeats: int, columns: Mapping[Witness, Float], how: Combination) -> StageRule:
    """Fit the witnesses [n] of a stage and its limits. Raises CalibrationError as `fit_witnesses` does."""
    return limit_stage(repeats, fit_witnesses(columns, how), columns, how)


def limit_stage(
    repeats: int, witnesses: tuple[FittedWitness, ...], columns: Mapping[Witness, Float], how: Combination
) -> StageRule:
    """The limits of the stage after `repeats` repeats, from the witnesses [n] of in-distribution images there.

    The low limit is the score that a share of PASSED of the images are below; the high limit is their highest score.
    Stage 0, before anything is denoised, has a low limit only where it looks inside the classifier, which can be more
    certain of a texture than of any image it was trained on, and shows it there.
    """
    scores = fuse(witnesses, how, np.stack(list(columns.values()), axis=1))
    low = float(np.quantile(scores, PASSED)) if repeats or INSIDE in columns else None
    return StageRule(repeats=repeats, witnesses=witnesses, low=low, high=float(scores.max()))


def score_in_stages(
    rules: Sequence[StageRule],
    last: Sequence[FittedWitness],
    how: Combination,
    values: Sequence[Float],
) -> tuple[Float, npt.NDArray[np.int64]]:
    """Score images whose every stage was measured by a rule in stages.

    Args:
        rules: Of all stages but the last, in order.
        last: Fitted witnesses of the last stage.
        how: How witnesses are combined.
        values: Witness values of each stage, float64 [n, W], the last stage included.

    Returns:
        As `stop_early`.
    """
    fitted = (*(rule.witnesses for rule in rules), last)
    scores = [fuse(witnesses, how, found) for witnesses, found in zip(fitted, values, strict=True)]
    return stop_early(np.stack(scores, axis=1), rules)


def stop_early(scores: Float, rules: Sequence[StageRule]) -> tuple[Float, npt.NDArray[np.int64]]:
    """Score float64 [n] of each image and the stage in 0 … J - 1 at which it ends, from scores [n, J] of all stages.

    Scores of stages after the one where an image ends are not used; they may be NaN.
    """
    stage = np.full(len(scores), len(rules))
    for j, rule in reversed(list(enumerate(rules))):
        stage[rule.ends(scores[:, j])] = j
    return scores[np.arange(len(scores)), stage], stage
