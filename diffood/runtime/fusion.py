"""A fusion as read at run time: witnesses made comparable and combined into one score. Fits nothing.

calibration.fusing fits it on in-distribution images; the calibration that was fitted with it carries it.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from diffood.errors import BundleError
from diffood.runtime.bundle import Bundle, FileName, Sha256, kept_folder, load_arrays, read_regular, write_atomically
from diffood.runtime.plan import Combination
from diffood.runtime.scoring import Float, unit
from diffood.runtime.witnesses import Array, Evidence, Witness, measure

MAX_BANK_BYTES = 256 * 2**20
BANK_DIGITS = 12  # of its sha256, in its file's name

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FittedWitness(_Strict):
    """A witness and what its values are on in-distribution images: their mean and standard deviation."""

    name: Witness
    center: Finite
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BankEntry(_Strict):
    """The file of the features that "knn" compares with: sha256 of its bytes and their number."""

    file: FileName
    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=MAX_BANK_BYTES)]


class FusionRecord(_Strict):
    """What a calibration holds of its fusion. n: images it was fitted on, none of them calibrated on."""

    combine: Combination
    witnesses: Annotated[tuple[FittedWitness, ...], Field(min_length=1)]
    n: Annotated[int, Field(ge=2)]
    bank: BankEntry | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "FusionRecord":
        if (self.bank is not None) != ("knn" in self.names):
            raise ValueError("a bank belongs to the witness knn, and to it alone")
        return self

    @property
    def names(self) -> tuple[Witness, ...]:
        """The witnesses in order."""
        return tuple(witness.name for witness in self.witnesses)

    @property
    def sha256(self) -> str:
        """Hash over everything in the record, the bank's own among it: part of the fingerprint of a score."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def standardised(self, values: Float) -> Float:
        """Values [..., W] in standard deviations above what is usual in-distribution."""
        center = np.array([witness.center for witness in self.witnesses])
        scale = np.array([witness.scale for witness in self.witnesses])
        return np.asarray((values - center) / scale)


@dataclass(frozen=True)
class Fusion:
    """A record with its bank float32 [B, D] of unit rows, None without "knn"."""

    record: FusionRecord
    bank: Array | None = None

    def values(self, evidence: Evidence) -> Float:
        """Values float64 [W] of the witnesses."""
        return measure(self.record.names, evidence, self.bank)

    def score(self, values: Float) -> float:
        """One number from the witnesses' values [W]."""
        return float(combine(self.record.standardised(values), self.record.combine))


def combine(standardised: Float, how: Combination) -> Float:
    """One score [...] from standardised witnesses [..., W].

    "sum": their mean. "tail": the mean of -log P(Z > z), Z standard normal, which is Fisher's statistic (1932) over 2W.
    Far out it grows with the square, so that one witness that is sure is not talked down by others that say nothing.
    NaN where a witness is not finite: the tail of -inf is 0, and would pass for in-distribution.
    """
    standardised = np.where(np.isfinite(standardised), standardised, np.nan)
    if how == "sum":
        return np.asarray(standardised.mean(axis=-1))
    from scipy.special import log_ndtr

    return np.asarray(-log_ndtr(-standardised).mean(axis=-1))


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
    write_atomically(folder / entry.file, data)


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
