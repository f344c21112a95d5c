"""parity.json at run time: which variants were found to give the verdicts of the calibrated one. Scores nothing.

calibration.parity measures, and leaves a record in the bundle. What follows from its counts is computed again whenever
the record is read: the bound and the problems. The counts themselves, the AUROCs, the shifts and the speeds cannot be
had again without the images: they are a claim of whoever ran `diffood verify`, which a signature vouches for.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffood.errors import RefusedEngineError
from diffood.runtime.bundle.bundle import PARITY, Bundle, Sha256
from diffood.runtime.bundle.calibration import Calibration, Fingerprint
from diffood.runtime.method.promises import CLOSE, upper_end
from diffood.runtime.printable import shell_word
from diffood.runtime.records import Record, Share, Text

MAX_PARITY_BYTES = 4 * 2**20
TAIL = 0.025  # of each side of a 95 % interval


class ParityLimits(Record):
    """What a variant may differ by: share of flipped verdicts on InD images, AUROC of any OOD set (of 1)."""

    flips: Share = 0.005
    auroc_shift: Share = 0.002

    @property
    def fewest_images(self) -> int:
        """The smallest number of InD images at which a single flip is within the limit; 1 where no flip is allowed."""
        return math.ceil(1 / self.flips) if self.flips > 0 else 1


class SetParity(Record):
    """One OOD set: images, flipped verdicts, AUROC against the InD images by the reference and by the variant."""

    images: Annotated[int, Field(ge=1)]
    flips: Annotated[int, Field(ge=0)]
    auroc_reference: Share
    auroc_variant: Share

    @model_validator(mode="after")
    def _possible(self) -> "SetParity":
        if self.flips > self.images:
            raise ValueError(f"{self.flips} verdicts flip of {self.images}")
        return self


class ParityRecord(Record):
    """One judgement of a variant against the calibrated reference.

    Attributes:
        reference: What the calibration was fitted on.
        variant: What was judged.
        calibration_sha256: Hash of calibration.json at that time.
        limits: What the variant may differ by.
        images: In-distribution images scored by both.
        flips: Verdicts that differ.
        flips_to_alarm: Of these, from passed to flagged.
        flip_bound: Upper end of the Clopper-Pearson 95 % interval of their share.
        p_value_shift: Largest difference of p-values.
        threshold_shift: The variant's threshold minus the reference's, both at the calibration's rate on these images.
        sets: OOD sets by name.
        not_finite: In-distribution scores of the variant that are no finite number.
        images_per_second: Of the variant on these images, in turns with the reference on the machine that verified.
        reference_images_per_second: Of the reference.
        problems: Limits that were exceeded.
    """

    reference: Fingerprint
    variant: Fingerprint
    calibration_sha256: Sha256
    limits: ParityLimits
    images: Annotated[int, Field(ge=1)]
    flips: Annotated[int, Field(ge=0)]
    flips_to_alarm: Annotated[int, Field(ge=0)]
    flip_bound: Share
    p_value_shift: Share
    threshold_shift: float
    sets: dict[Text, SetParity]
    not_finite: Annotated[int, Field(ge=0)] = 0
    images_per_second: Annotated[float, Field(ge=0)]
    reference_images_per_second: Annotated[float, Field(ge=0)]
    problems: tuple[Text, ...]

    @model_validator(mode="after")
    def _follows_from_its_counts(self) -> "ParityRecord":
        if not self.flips_to_alarm <= self.flips <= self.images or self.not_finite > self.images:
            raise ValueError(
                f"of {self.images} images {self.flips} verdicts flip, {self.flips_to_alarm} of them to an alarm, and "
                f"{self.not_finite} scores are not finite: that is not possible"
            )
        if self.images < self.limits.fewest_images:
            raise ValueError(f"images: {self.images} are too few, {self.limits.fewest_images} are needed")
        if not math.isclose(self.flip_bound, bound := flip_bound(self.flips, self.images), rel_tol=CLOSE):
            raise ValueError(f"flip_bound: {self.flip_bound} is not what the flips give, {bound}")
        found = list_problems(self.flips, self.images, self.not_finite, self.sets, self.limits)
        if self.problems != found:
            raise ValueError(f"problems: they are not those of the counts and limits, {list(found)}")
        return self

    @property
    def passed(self) -> bool:
        """Whether the variant may be used instead of the reference."""
        return not self.problems


def flip_bound(flips: int, images: int) -> float:
    """Upper end of the Clopper-Pearson 95 % interval of the share of flipped verdicts."""
    return upper_end(flips, images, TAIL)


def list_problems(
    flips: int, images: int, not_finite: int, sets: Mapping[str, SetParity], limits: ParityLimits
) -> tuple[str, ...]:
    """The limits that a variant exceeds, a clause each; the arguments are those of ParityRecord."""
    problems = []
    if flips > limits.flips * images:
        problems.append(f"{flips} of {images} verdicts flip ({flips / images:.2%}), {limits.flips:.2%} are allowed")
    if not_finite:
        problems.append(f"{not_finite} of {images} scores are not finite")
    for name, found in sets.items():
        shift = found.auroc_variant - found.auroc_reference
        if abs(shift) > limits.auroc_shift:
            problems.append(
                f"AUROC on {name} moves by {100 * shift:+.2f} points, {100 * limits.auroc_shift:.2f} are allowed"
            )
    return tuple(problems)


class CheckRecord(Record):
    """What a check of `diffood verify` found of one engine.

    Attributes:
        variant: What was checked.
        what: The kind of check.
        outcome: "failed": the engine must not serve. "noted": it differs, and verdicts decide.
        detail: What was found.
    """

    variant: Fingerprint
    what: Literal["golden", "contract"]
    outcome: Literal["ok", "failed", "noted"]
    detail: Text

    def is_about(self, running: Fingerprint) -> bool:
        """Whether it is about this engine and these graphs, whatever the plan's other parts and the fusion are."""
        return _engine_of(self.variant) == _engine_of(running)


def _engine_of(found: Fingerprint) -> tuple[str | None, ...]:
    return found.precision, found.backend, found.engine_sha256, found.classify_sha256, found.step_sha256


class ParityFile(Record):
    """The content of parity.json: the newest record of each pair of fingerprints, and the newest checks of each engine.

    Attributes:
        format: Format of the file.
        records: Judgements of variants.
        checks: Of every engine that was verified since the bundle was calibrated; None before there are any.
    """

    format: Literal[1] = 1
    records: tuple[ParityRecord, ...] = ()
    checks: tuple[CheckRecord, ...] | None = None

    @model_validator(mode="after")
    def _one_judgement_for_each_pair(self) -> "ParityFile":
        pairs = [(record.reference, record.variant) for record in self.records]
        if any(pair in pairs[:place] for place, pair in enumerate(pairs)):
            raise ValueError("records: a variant is judged twice")
        if any(record.reference == record.variant for record in self.records):
            raise ValueError("records: a variant is judged by itself")
        return self


def load_parity(bundle: Bundle) -> ParityFile:
    """Read the bundle's judgements, none if it was never verified. Raises BundleError if the file is damaged."""
    if not os.path.lexists(bundle.path / PARITY):
        return ParityFile()
    remedy = "remove it and run `diffood verify` again"
    return bundle.unlisted.read_record(PARITY, ParityFile, MAX_PARITY_BYTES, remedy)


def add_record(bundle: Bundle, record: ParityRecord) -> None:
    """Write a judgement into the bundle, replacing an earlier one of the same pair."""
    pair = (record.reference, record.variant)
    found = load_parity(bundle)
    kept = [old for old in found.records if (old.reference, old.variant) != pair]
    bundle.unlisted.write_record(PARITY, found.model_copy(update={"records": (*kept, record)}))


def add_checks(bundle: Bundle, checks: Sequence[CheckRecord]) -> None:
    """Write the checks of engines into the bundle, replacing earlier ones; nothing is written where none is new."""
    found = load_parity(bundle)
    old = found.checks or ()
    kept = [one for one in old if not any(one.is_about(new.variant) for new in checks)]
    if set(old) != {*kept, *checks}:  # a verified bundle on a read-only disk can be verified again
        bundle.unlisted.write_record(PARITY, found.model_copy(update={"checks": (*kept, *checks)}))


def find_record(judged: ParityFile, calibration: Calibration, running: Fingerprint) -> ParityRecord | None:
    """The judgement of the running variant against this calibration, None if there is none.

    It is valid for the threshold it was made at, so it names the calibration's hash.
    """
    pair = (calibration.fingerprint, running)
    found = [record for record in judged.records if (record.reference, record.variant) == pair]
    return next((record for record in found if record.calibration_sha256 == calibration.sha256), None)


def refusal(judged: ParityFile, calibration: Calibration, running: Fingerprint) -> str:
    """Why this engine must not serve with this calibration, in a few words; "" where it may.

    The one answer that `verify` prints, `inspect` shows and serving acts on.
    """
    if failed := _failed_check(judged, running):
        return failed
    if running == calibration.fingerprint:
        return ""
    if running.noise_rule != calibration.fingerprint.noise_rule:
        return f"it draws noise by the rule {running.noise_rule}, calibrated was {calibration.fingerprint.noise_rule}"
    record = find_record(judged, calibration, running)
    if record is None:
        return "its verdicts were not compared with the calibrated one's"
    return "; ".join(record.problems)


def _failed_check(judged: ParityFile, running: Fingerprint) -> str:
    found = (check for check in judged.checks or () if check.is_about(running))
    return "; ".join(f"{check.what} failed: {check.detail}" for check in found if check.outcome == "failed")


def require_calibrated(bundle: Bundle, calibration: Calibration, running: Fingerprint) -> None:
    """Refuse a calibration that was not fitted on what runs, unless the parity gate has passed for the pair.

    An engine that failed a check of `diffood verify` is refused in any case. Raises RefusedEngineError naming both,
    what differs, and what to do.
    """
    judged = load_parity(bundle)
    reason = refusal(judged, calibration, running)
    if not reason:
        return
    fitted = calibration.fingerprint
    if failed := _failed_check(judged, running):
        raise RefusedEngineError(
            f"{running.precision} on {running.backend} must not serve, as `diffood verify` found ({failed}). Use "
            f"another --precision or --backend; after a repair run `diffood verify {shell_word(bundle.path)}` again.",
            reason,
        )
    if fitted.noise_rule != running.noise_rule:
        raise RefusedEngineError(
            f"calibration.json was made with the noise rule {fitted.noise_rule}; this version of diffood draws noise "
            f"by {running.noise_rule}, which gives other scores. Run `diffood calibrate "
            f"{shell_word(bundle.path)} --images DIR --overwrite` with the same options.",
            reason,
        )
    if fitted.plan != running.plan:
        remedy = f"Run `diffood calibrate {shell_word(bundle.path)} --images DIR --overwrite` with the same options"
    elif fitted == running.model_copy(update={"fusion_sha256": fitted.fusion_sha256}):
        remedy = "The bundle was calibrated again after this detector was made: open the bundle again"
    else:
        remedy = (
            f"Run `diffood verify {shell_word(bundle.path)} --images DIR` to test the pair, "
            f"or `diffood calibrate {shell_word(bundle.path)} --images DIR --overwrite`"
        )
    record = find_record(judged, calibration, running)
    refused = f" The parity gate refused it: {'; '.join(record.problems)}." if record is not None else ""
    raise RefusedEngineError(
        f"Not calibrated for what is running: calibration.json is for {fitted.precision} on {fitted.backend} "
        f"(fingerprint {fitted.short}…), this is {running.precision} on {running.backend} ({running.short}…); "
        f"{fitted.difference(running)}.{refused} {remedy}.",
        reason,
    )
