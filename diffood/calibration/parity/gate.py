"""The decision-parity gate: judges a variant by the verdicts it gives, not by its numerical error."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.calibration.metrics.rates import auroc, clopper_pearson
from diffood.calibration.promises.thresholds import fit_threshold
from diffood.errors import CalibrationError
from diffood.runtime.bundle.calibration import Calibration, Fingerprint
from diffood.runtime.bundle.parity import ParityLimits, ParityRecord, SetParity
from diffood.runtime.decision import DecisionRule, Decisions

Scores = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """What one variant gave: fingerprint, speed, and by set ("ind" first) scores float64 [n], predicted int64 [n]."""

    fingerprint: Fingerprint
    scores: Mapping[str, Scores]
    predicted: Mapping[str, Classes]
    images_per_second: float

    def decide(self, name: str, rule: DecisionRule) -> Decisions:
        """Verdicts on a set, at the thresholds of the classes that this variant itself predicts."""
        return rule.decide(self.scores[name], self.predicted[name])


def images_required(limits: ParityLimits) -> int:
    """Fewest InD images with which one flip more or less is no more than the limit; 1 where flips are not limited."""
    return int(np.ceil(1 / limits.flips)) if limits.flips > 0 else 1


def judge(reference: Run, variant: Run, calibration: Calibration, digest: str, limits: ParityLimits) -> ParityRecord:
    """Compare two runs over the same images at the calibration's thresholds; `digest` is its file's sha256.

    Scores that are not numbers count as flagged, as at run time. Raises CalibrationError for too few InD images.
    """
    known, other = reference.scores["ind"], variant.scores["ind"]
    if len(known) < images_required(limits):
        raise CalibrationError(
            f"{len(known)} in-distribution images are too few to judge a flip rate of {limits.flips:.2%}: at least "
            f"{images_required(limits)} are needed. Give more with --images, or a higher --max-flips."
        )
    rule = DecisionRule.of(calibration)
    before, after = reference.decide("ind", rule), variant.decide("ind", rule)
    flipped = before.is_ood != after.is_ood
    flips = int(flipped.sum())
    sets = {name: _set_parity(reference, variant, name, rule) for name in reference.scores if name != "ind"}
    return ParityRecord(
        reference=reference.fingerprint,
        variant=variant.fingerprint,
        calibration_sha256=digest,
        limits=limits,
        images=len(known),
        flips=flips,
        flips_to_alarm=int((flipped & after.is_ood).sum()),
        flip_bound=clopper_pearson(flips, len(known))[1],
        p_value_shift=float(np.abs(before.p_values - after.p_values).max()),
        threshold_shift=_quantile(other, calibration.alpha) - _quantile(known, calibration.alpha),
        sets=sets,
        images_per_second=variant.images_per_second,
        reference_images_per_second=reference.images_per_second,
        problems=tuple(_problems(flips, len(known), int((~np.isfinite(other)).sum()), sets, limits)),
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
    return auroc(_ranked(run.scores["ind"]), _ranked(run.scores[name]))


def _problems(flips: int, images: int, broken: int, sets: Mapping[str, SetParity], limits: ParityLimits) -> list[str]:
    problems = []
    if flips > limits.flips * images:
        problems.append(f"{flips} of {images} verdicts flip ({flips / images:.2%}), {limits.flips:.2%} may")
    if broken:
        problems.append(f"{broken} of {images} scores are not finite")
    for name, found in sets.items():
        shift = found.auroc_variant - found.auroc_reference
        if abs(shift) > limits.auroc_shift:
            problems.append(
                f"AUROC on {name} moves by {100 * shift:+.2f} points, {100 * limits.auroc_shift:.2f} are allowed"
            )
    return problems


def _quantile(scores: Scores, alpha: float) -> float:
    return fit_threshold(_ranked(scores), alpha, 0.95, "quantile").value


def _ranked(scores: Scores) -> Scores:
    """Put what is not a number above everything: it is flagged."""
    return np.where(np.isfinite(scores), scores, np.finfo(np.float64).max)
