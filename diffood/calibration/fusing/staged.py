"""Rules in stages: where their limits lie, and what a whole rule says of images whose every stage was measured.

The rule: scores of J stages, the cheapest first. After stage j < J an image whose score there is <= low_j or > high_j
ends; the others go on, and those that reach the last stage end there. The score of an image is that of the stage at
which it ended, and it is flagged when that is above one threshold, whatever the stage.

**Validity.** With the limits fixed, where an image ends and the score there are a function of the image alone: nothing
of other images, and nothing random, enters. The limits come from other images than the threshold (`fusing` parts
them), so the scores of calibration images and of a future in-distribution image are exchangeable, and every promise of
`thresholds` for a single score holds for this one: it is calibrated and served as a whole. Nothing was assumed of the
limits, of the stages' scores or of their dependence.

**Poor limits** keep the promise and cost money or detection: a low above the threshold ends images that are flagged
though later repeats might have cleared them, a high below it ends images that pass.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from diffood.calibration.fusing.fitting import fit_witnesses
from diffood.runtime.bundle.fusion import StageRule
from diffood.runtime.method.fusion import FittedWitness, fuse
from diffood.runtime.method.plan import Combination
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.registry import Witness

PASSED = 0.5  # of in-distribution images go no further than the first repeats; docs/detection.md: what 0.8 would cost


def fit_stage(repeats: int, columns: Mapping[Witness, Float], how: Combination) -> StageRule:
    """`limit_stage` of the witnesses [n] as `fit_witnesses` fits them. Raises CalibrationError as that does."""
    return limit_stage(repeats, fit_witnesses(columns, how), columns, how)


def limit_stage(
    repeats: int, witnesses: tuple[FittedWitness, ...], columns: Mapping[Witness, Float], how: Combination
) -> StageRule:
    """When an image ends after so many repeats, from the witnesses [n] of in-distribution images there.

    Low enough is what PASSED of them are below; high enough what none of them exceeds. Before anything is denoised no
    image passes: a classifier can be surer of a texture than of any image it was trained on.
    """
    scores = fuse(witnesses, how, np.stack(list(columns.values()), axis=1))
    low = float(np.quantile(scores, PASSED)) if repeats else None
    return StageRule(repeats=repeats, witnesses=witnesses, low=low, high=float(scores.max()))


def score_in_stages(
    rules: Sequence[StageRule],
    last: Sequence[FittedWitness],
    how: Combination,
    values: Sequence[Float],
) -> tuple[Float, npt.NDArray[np.int64]]:
    """What a rule says of images of which all was measured: `stop_early` of their scores.

    last: the witnesses of the last stage; values: those of each stage [n, W], the last's after the rules' in order.
    """
    fitted = (*(rule.witnesses for rule in rules), last)
    scores = [fuse(witnesses, how, found) for witnesses, found in zip(fitted, values, strict=True)]
    return stop_early(np.stack(scores, axis=1), rules)


def stop_early(scores: Float, rules: Sequence[StageRule]) -> tuple[Float, npt.NDArray[np.int64]]:
    """Score float64 [n] of each image and the stage in 0 … J - 1 at which it ends, from scores [n, J] of all stages.

    Those of stages after the one where an image ends do not count; they may be anything, NaN for instance.
    """
    stage = np.full(len(scores), len(rules))
    for j, rule in reversed(list(enumerate(rules))):
        ends = np.array([rule.ends(score) for score in scores[:, j]], bool)
        stage[ends] = j
    return scores[np.arange(len(scores)), stage], stage
