"""A fusion as read at run time: witnesses made comparable and combined into one score. Fits nothing.

calibration.fusing fits it on in-distribution images; the calibration that was fitted with it carries it.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from diffood.errors import BundleError
from diffood.runtime.bundle.arrays import load_arrays
from diffood.runtime.bundle.bundle import KEPT, Bundle, FileName, Sha256, kept_folder
from diffood.runtime.method.fusion import FittedWitness, fuse
from diffood.runtime.method.plan import Combination, Plan
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.definition import FEATURES, Reference
from diffood.runtime.method.witnesses.registry import WITNESSES, Bank, Witness, measurable, need_bank, require_width
from diffood.runtime.printable import shell_word
from diffood.runtime.records import Record

MAX_BANK_BYTES = 256 * 2**20
BANK_DIGITS = 12  # of its sha256, in its file's name


class BankEntry(Record):
    """The file of what witnesses such as "margin" compare with: sha256 of its bytes and their number."""

    file: FileName
    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=MAX_BANK_BYTES)]


class StageRule(Record):
    """When scoring stops early: after `repeats`, if the score of these witnesses is clear.

    The score of an image is that of the stage at which it stops.

    Attributes:
        repeats: Repeats after which the score is judged.
        witnesses: What is combined at this stage.
        low: Scores at most this stop as in-distribution; None: none does.
        high: Scores above this stop as out-of-distribution; None: none does.
    """

    repeats: Annotated[int, Field(ge=0)]
    witnesses: Annotated[tuple[FittedWitness, ...], Field(min_length=1)]
    low: float | None
    high: float | None

    def ends(self, scores: Float) -> npt.NDArray[np.bool_]:
        """Whether scores [...] are clear enough to stop; NaN never is."""
        low, high = (np.nan if limit is None else limit for limit in (self.low, self.high))  # none is beyond NaN
        return np.asarray((scores <= low) | (scores > high))


class FusionRecord(Record):
    """How a calibration combines witnesses into one score.

    Attributes:
        combine: The rule.
        witnesses: Fitted witnesses for images that go through all repeats.
        n: Images it was fitted on; the threshold was fitted on others.
        bank: File of the bank, if a witness compares images with in-distribution ones.
        stages: Rules of the plan's stages, in their order.
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
        """What this combines and the plan does not, as a sentence; "" if it was fitted for the plan."""
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
        """Hash of the record, the bank's hash included; part of the fingerprint of a score."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def score(self, values: Float) -> Float:
        """Scores [...] from witness values [..., W] of images that went through all repeats."""
        return fuse(self.witnesses, self.combine, values)


@dataclass(frozen=True)
class Fusion:
    """A record with its bank, None where no witness needs one."""

    record: FusionRecord
    bank: Bank | None = None


def pack_bank(bank: Bank) -> tuple[BankEntry, bytes]:
    """The entry and the file's bytes of a bank."""
    arrays: dict[str, Any] = {
        f"{name}.{array}": values for name, found in bank.items() for array, values in found.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    return BankEntry(file=f"bank.{digest[:BANK_DIGITS]}.npz", sha256=digest, size=len(data)), data


def unpack_bank(data: bytes, name: str, witnesses: Sequence[Witness]) -> Bank:
    """What these witnesses compare with, from the bytes of a bank. Raises BundleError if it is not there or unfit."""
    found = load_arrays(data, name, remedy="calibrate again")
    bank = {}
    for witness in need_bank(witnesses):
        how = WITNESSES[witness].comparison
        assert how is not None
        reference = {array: found.get(f"{witness}.{array}", np.empty(0)) for array in how.axes}
        if not _fits(how.axes, reference):
            wanted = ", ".join(f"{witness}.{array} [{', '.join(axes)}]" for array, axes in how.axes.items())
            raise BundleError(f"{name} needs finite float32 arrays {wanted}; calibrate again.")
        bank[witness] = reference
    return bank


def _fits(axes: Mapping[str, str], reference: Reference) -> bool:
    """Whether arrays have these axes, those of one letter in one length, and finite float32 values."""
    sizes: dict[str, int] = {}
    for name, array in reference.items():
        if array.dtype != np.float32 or array.ndim != len(axes[name]) or not array.size or not np.isfinite(array).all():
            return False
        if any(sizes.setdefault(letter, size) != size for letter, size in zip(axes[name], array.shape, strict=True)):
            return False
    return True


def save_bank(bundle: Bundle, entry: BankEntry, data: bytes) -> None:
    """Write a bank into the bundle under a name that is its hash: earlier calibrations keep theirs."""
    kept_folder(bundle).mkdir(exist_ok=True)
    bundle.unlisted.write(f"{KEPT}/{entry.file}", data)


def load_fusion(bundle: Bundle, record: FusionRecord) -> Fusion:
    """The fusion of a record with its bank. Raises BundleError if that is missing, changed or unfit."""
    if record.bank is None:
        return Fusion(record)
    bank = unpack_bank(read_bank(bundle, record.bank), record.bank.file, record.names)
    for name, reference in bank.items():
        if (how := WITNESSES[name].comparison) and how.vector == FEATURES:  # the graphs alone tell the others' lengths
            require_width(name, reference, bundle.manifest.feature_count)
    return Fusion(record, bank)


def read_bank(bundle: Bundle, entry: BankEntry) -> bytes:
    """Bytes of the file of a bank, hashed: the bytes returned are those that were checked. Raises BundleError."""
    folder, remedy = kept_folder(bundle), _remedy(bundle)
    name = f"{KEPT}/{entry.file}"
    data = bundle.unlisted.read(name, entry.size, remedy)
    if bundle.unlisted.hashes[name] != entry.sha256:
        raise BundleError(f"{folder / entry.file} was changed after the calibration; {remedy}.")
    return data


def _remedy(bundle: Bundle) -> str:
    return f"calibrate again: `diffood calibrate {shell_word(bundle.path)} --images DIR --overwrite`"
