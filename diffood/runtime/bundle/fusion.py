"""A fusion as read at run time: witnesses made comparable and combined into one score. Fits nothing.

calibration.fusing fits it on in-distribution images; the calibration that was fitted with it carries it.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from diffood.errors import BundleError
from diffood.runtime.bundle.arrays import load_arrays
from diffood.runtime.bundle.bundle import Bundle, FileName, Sha256, kept_folder
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.bundle.files import read_regular
from diffood.runtime.method.fusion import FittedWitness, fuse
from diffood.runtime.method.plan import Combination, Plan
from diffood.runtime.method.scoring import Array, Float, unit
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.method.witnesses.registry import WITNESSES, Witness, measurable, measure, need_bank
from diffood.runtime.records import Record

MAX_BANK_BYTES = 256 * 2**20
BANK_DIGITS = 12  # of its sha256, in its file's name


class BankEntry(Record):
    """The file of the features that witnesses such as "knn" compare with: sha256 of its bytes and their number."""

    file: FileName
    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=MAX_BANK_BYTES)]


class StageRule(Record):
    """When an image ends after so many repeats: when its score there, of these witnesses, is <= low or > high.

    None: never on that side. The score of an image is that of the stage at which it ends.
    """

    repeats: Annotated[int, Field(ge=0)]
    witnesses: Annotated[tuple[FittedWitness, ...], Field(min_length=1)]
    low: float | None
    high: float | None

    def ends(self, score: float) -> bool:
        """Whether a score says enough; one that is not finite says nothing."""
        return bool((self.low is not None and score <= self.low) or (self.high is not None and score > self.high))


class FusionRecord(Record):
    """What a calibration holds of its fusion. n: images it was fitted on, none of them calibrated on.

    witnesses: of an image that goes all the way; stages: of those that end before, in the order of the plan's.
    """

    combine: Combination
    witnesses: Annotated[tuple[FittedWitness, ...], Field(min_length=1)]
    n: Annotated[int, Field(ge=2)]
    bank: BankEntry | None = None
    stages: tuple[StageRule, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "FusionRecord":
        if (self.bank is not None) != bool(need_bank(self.names)):
            raise ValueError(f"a bank goes with {', '.join(need_bank(WITNESSES))} and with no other witness")
        for witnesses in (self.witnesses, *(rule.witnesses for rule in self.stages)):
            if not abs(sum(witness.weight for witness in witnesses) - 1) < 1e-6:
                raise ValueError("the weights of the witnesses are not 1 together")
        for rule in self.stages:
            if tuple(witness.name for witness in rule.witnesses) != measurable(self.names, rule.repeats):
                raise ValueError(f"the stage of {rule.repeats} repeats combines other witnesses than can be measured")
        return self

    def mismatch(self, plan: Plan) -> str:
        """What this combines and the plan does not, in words; "" where it belongs to the plan."""
        mine = (self.names, self.combine, tuple(rule.repeats for rule in self.stages))
        wanted = (plan.witnesses, plan.combine, plan.stages)
        if mine == wanted:
            return ""
        words = [
            f"{', '.join(names)} by {how}{f' in stages {list(stages)}' if stages else ''}"
            for names, how, stages in (mine, wanted)
        ]
        return f"The fusion combines {words[0]}, the plan {words[1]}"

    @property
    def names(self) -> tuple[Witness, ...]:
        """The witnesses in order."""
        return tuple(witness.name for witness in self.witnesses)

    @property
    def sha256(self) -> str:
        """Hash over everything in the record, the bank's own among it: part of the fingerprint of a score."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def score(self, values: Float) -> Float:
        """One score [...] from the witnesses' values [..., W] of images that went all the way."""
        return fuse(self.witnesses, self.combine, values)


@dataclass(frozen=True)
class Fusion:
    """A record with its bank float32 [B, D] of unit rows, None where no witness needs one."""

    record: FusionRecord
    bank: Array | None = None

    def values(self, evidence: Evidence) -> Float:
        """Values float64 [W] of the witnesses; NaN for those that cannot be measured without a repeat."""
        names = self.record.names
        here = measurable(names, evidence.repeats)
        found = measure(here, evidence, self.bank)
        if here == names:
            return found
        values = np.full(len(names), np.nan)
        values[[names.index(name) for name in here]] = found
        return values

    def score(self, evidence: Evidence, values: Float) -> float:
        """One number from the witnesses' values [W]: that of the stage the evidence is from."""
        for rule in self.record.stages:
            if rule.repeats == evidence.repeats:
                here = [self.record.names.index(witness.name) for witness in rule.witnesses]
                return float(fuse(rule.witnesses, self.record.combine, values[here]))
        return float(self.record.score(values))

    def ends(self, evidence: Evidence, score: float) -> bool:
        """Whether an image of this score goes no further than what there is of it."""
        return any(rule.ends(score) for rule in self.record.stages if rule.repeats == evidence.repeats)


def pack_bank(features: Array) -> tuple[BankEntry, bytes]:
    """An entry and the bytes of its file, from features [B, D]; float16 of unit rows is a thousandth of distances."""
    buffer = io.BytesIO()
    np.savez(buffer, features=unit(features).astype(np.float16))
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    return BankEntry(file=f"bank.{digest[:BANK_DIGITS]}.npz", sha256=digest, size=len(data)), data


def unpack_bank(data: bytes, name: str) -> Array:
    """Unit rows float32 [B, D] of a bank's bytes. Raises BundleError where they are none.

    Made unit again, since float16 leaves their lengths a little off, which alone moves a small distance by a hundredth.
    """
    found = load_arrays(data, name, remedy="calibrate again").get("features")
    if found is None or found.ndim != 2 or found.dtype != np.float16 or not np.isfinite(found).all() or not found.size:
        raise BundleError(f"{name} needs finite float16 features [B, D]; calibrate again.")
    return unit(found).astype(np.float32)


def save_bank(bundle: Bundle, entry: BankEntry, data: bytes) -> None:
    """Write a bank into the bundle under a name that is its hash: earlier calibrations keep theirs."""
    folder = kept_folder(bundle)
    folder.mkdir(exist_ok=True)
    write_durably(folder / entry.file, data)


def load_fusion(bundle: Bundle, record: FusionRecord) -> Fusion:
    """The fusion of a record with its bank. Raises BundleError where that is missing, changed or of other features."""
    if record.bank is None:
        return Fusion(record)
    entry, remedy = record.bank, f"calibrate again: `diffood calibrate {bundle.path} --images DIR`"
    folder = kept_folder(bundle)
    data = read_regular(folder, entry.file, entry.size, remedy)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(f"{folder / entry.file} was changed after the calibration; {remedy}.")
    bank = unpack_bank(data, entry.file)
    if bank.shape[1] != bundle.manifest.feature_count:
        raise BundleError(
            f"{folder / entry.file} holds {bank.shape[1]} features a row where the classifier has "
            f"{bundle.manifest.feature_count}; {remedy}."
        )
    return Fusion(record, bank)
