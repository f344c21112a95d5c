"""The decision-parity gate: judges a variant by its verdicts, not by its numerical error."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffood.calibration.checked import FloatArray, IntArray
from diffood.calibration.metrics.rates import auroc
from diffood.calibration.promises.thresholds import fit_threshold
from diffood.calibration.scored_files import IND
from diffood.errors import CalibrationError
from diffood.runtime.bundle.calibration import Calibration, Fingerprint
from diffood.runtime.bundle.parity import ParityLimits, ParityRecord, SetParity, flip_bound, list_problems
from diffood.runtime.decision import DecisionRule, Decisions


@dataclass(frozen=True)
class Run:
    """The results of one variant.

    Attributes:
        fingerprint: Of the variant.
        scores: By set, IND first, float64 [n].
        predicted: Predicted classes by set, int64 [n].
        images_per_second: Speed of the variant.
    """

    fingerprint: Fingerprint
    scores: Mapping[str, FloatArray]
    predicted: Mapping[str, IntArray]
    images_per_second: float

    def decide(self, name: str, rule: DecisionRule) -> Decisions:
        """Verdicts on a set, at the thresholds of the classes that this variant itself predicts."""
        return rule.decide(self.scores[name], self.predicted[name])


def judge(reference: Run, variant: Run, calibration: Calibration, limits: ParityLimits) -> ParityRecord:
    """Compare two runs over the same images at the thresholds of a calibration.

    Scores that are not numbers count as flagged, as at run time.

    Args:
        reference: The calibrated variant.
        variant: The variant to judge.
        calibration: The thresholds.
        limits: The differences that are allowed.

    Raises:
        CalibrationError: There are too few InD images for the limits.
    """
    known, other = reference.scores[IND], variant.scores[IND]
    if len(known) < limits.fewest_images:
        raise CalibrationError(
            f"{len(known)} in-distribution images are too few to judge a flip rate of {limits.flips:.2%}: at least "
            f"{limits.fewest_images} are needed. Give more with --images, or a higher --max-flips."
        )
    rule = DecisionRule.of(calibration)
    before, after = reference.decide(IND, rule), variant.decide(IND, rule)
    flipped = before.is_ood != after.is_ood
    flips = int(flipped.sum())
    not_finite = int((~np.isfinite(other)).sum())
    sets = {name: _set_parity(reference, variant, name, rule) for name in reference.scores if name != IND}
    return ParityRecord(
        reference=reference.fingerprint,
        variant=variant.fingerprint,
        calibration_sha256=calibration.sha256,
        limits=limits,
        images=len(known),
        flips=flips,
        flips_to_alarm=int((flipped & after.is_ood).sum()),
        flip_bound=flip_bound(flips, len(known)),
        p_value_shift=float(np.abs(before.p_values - after.p_values).max()),
        threshold_shift=_quantile(other, calibration.alpha) - _quantile(known, calibration.alpha),
        sets=sets,
        not_finite=not_finite,
        images_per_second=variant.images_per_second,
        reference_images_per_second=reference.images_per_second,
        problems=list_problems(flips, len(known), not_finite, sets, limits),
    )


def _set_parity(reference: Run, variant: Run, name: str, rule: DecisionRule) -> SetParity:
    flips = reference.decide(name, rule).is_ood != variant.decide(name, rule).is_ood
    return SetParity(
        images=len(flips),
        flips=int(flips.sum()),
        auroc_reference=_auroc(reference, name),
        auroc_variant=_auroc(variant, name),
    )


def _auroc(run: Run, name: str) -> float:
    return auroc(_ranked(run.scores[IND]), _ranked(run.scores[name]))


def _quantile(scores: FloatArray, alpha: float) -> float:
    return fit_threshold(_ranked(scores), alpha, 0.95, "quantile").value


def _ranked(scores: FloatArray) -> FloatArray:
    """Scores with those that are not numbers replaced by the largest float64: they are flagged."""
    return np.where(np.isfinite(scores), scores, np.finfo(np.float64).max)


def describe_judgement(record: ParityRecord) -> str:
    """One line about a judgement."""
    limits = record.limits
    allowed = f", {limits.flips:.2%} allowed" if limits.flips != ParityLimits().flips else ""
    flips = f"{record.flips} of {record.images} verdicts flip (95% interval up to {record.flip_bound:.2%}{allowed})"
    shifts = [abs(found.auroc_variant - found.auroc_reference) for found in record.sets.values()]
    auroc = f", the AUROC by at most {100 * max(shifts):.2f} points" if shifts else ""
    if shifts and limits.auroc_shift != ParityLimits().auroc_shift:
        auroc += f" ({100 * limits.auroc_shift:.2f} allowed)"
    speed = record.images_per_second / record.reference_images_per_second if record.reference_images_per_second else 0
    problems = f"; refused: {'; '.join(record.problems)}" if record.problems else ""
    return (
        f"{flips}; p-values shift by at most {record.p_value_shift:.3f}, the threshold by "
        f"{record.threshold_shift:+.4f}{auroc}; {speed:.2f} times the reference's speed{problems}"
    )
