"""The calibration as read at run time: score in, p-value and verdict out. Fits nothing."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diffood.errors import BundleError, CalibrationError
from diffood.runtime.bundle import CALIBRATION, Bundle, Precision, Sha256, kept_folder, read_regular, write_atomically
from diffood.runtime.fusion import Fusion, FusionRecord, load_fusion
from diffood.runtime.images import ImageShape
from diffood.runtime.noise import NOISE_RULE
from diffood.runtime.plan import Plan, first_problem
from diffood.runtime.sessions import Backend

KEPT_DIGITS = 12  # of the sha256; a bundle sees some dozens of calibrations
MAX_CALIBRATION_BYTES = 256 * 2**20  # ten million scores


class Fingerprint(BaseModel):
    """All that a score depends on. Two equal fingerprints give the same scores, so one calibration holds for both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classify_sha256: str
    step_sha256: str
    noise_levels_sha256: str
    precision: Precision
    backend: Backend
    engine_sha256: str | None = None
    image: ImageShape
    noise_rule: str = NOISE_RULE
    plan: Plan
    fusion_sha256: Sha256 | None = None

    @property
    def short(self) -> str:
        """First eight hexadecimal digits of the fingerprint's own hash."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]

    def difference(self, other: "Fingerprint") -> str:
        """Name the fields in which two fingerprints differ, with both values."""
        mine, theirs = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        changed = [key for key in mine if mine[key] != theirs[key]]
        return "; ".join(f"{key}: {mine[key]} there, {theirs[key]} here" for key in changed)


def _flat(fields: dict[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": json.dumps(item) for inner, item in value.items()}
        else:
            flat[key] = str(value)[:16]
    return flat


class Calibration(BaseModel):
    """calibration.json: a threshold, what it guarantees, the sorted scores behind it and what it holds for.

    An image is flagged when its score > threshold. allowed_above of the n scores lie above it at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    method: Literal["pac", "conformal", "quantile"]
    alpha: Annotated[float, Field(gt=0, lt=1)]
    delta: Annotated[float, Field(gt=0, lt=1)] | None
    n: Annotated[int, Field(ge=1)]
    allowed_above: Annotated[int, Field(ge=0)]
    threshold: Annotated[float, Field(allow_inf_nan=False)]
    guarantee: str
    set_aside: Annotated[int, Field(ge=0)]
    fingerprint: Fingerprint
    scores: list[Annotated[float, Field(allow_inf_nan=False)]]
    fusion: FusionRecord | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Calibration":
        if len(self.scores) != self.n:
            raise ValueError(f"n is {self.n} but {len(self.scores)} scores are stored")
        if any(b < a for a, b in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("the scores are not sorted")
        if sum(score > self.threshold for score in self.scores) > self.allowed_above:
            raise ValueError(f"more than {self.allowed_above} scores lie above the threshold {self.threshold}")
        if (self.fusion.sha256 if self.fusion else None) != self.fingerprint.fusion_sha256:
            raise ValueError("the fusion is not the one of the fingerprint")
        plan = self.fingerprint.plan
        if plan.fused != (self.fusion is not None):
            need = "need a fusion, and there is none" if plan.fused else "take no fusion, and there is one"
            raise ValueError(f"the plan's witnesses {list(plan.witnesses)} {need}")
        if self.fusion and (self.fusion.names, self.fusion.combine) != (plan.witnesses, plan.combine):
            raise ValueError(
                f"the fusion's witnesses {list(self.fusion.names)} by {self.fusion.combine} are not the plan's "
                f"{list(plan.witnesses)} by {plan.combine}"
            )
        return self


@dataclass(frozen=True)
class Decisions:
    """p_values float64 [N] in (0, 1], is_ood bool [N], threshold of all of them."""

    p_values: npt.NDArray[np.float64]
    is_ood: npt.NDArray[np.bool_]
    threshold: float


def decide(scores: npt.NDArray[np.float64], calibration: Calibration) -> Decisions:
    """Conformal p-values and verdicts of scores [N]; a score that is not finite, -inf too, is flagged, never passed.

    p = (1 + #{calibration scores >= s}) / (n + 1): Vovk et al. 2005.
    """
    finite = np.where(np.isfinite(scores), scores, np.inf)
    at_least = calibration.n - np.searchsorted(np.array(calibration.scores), finite, side="left")
    return Decisions((1 + at_least) / (calibration.n + 1), finite > calibration.threshold, calibration.threshold)


def load_calibration(bundle: Bundle) -> Calibration:
    """Read the bundle's calibration. CalibrationError where there is none, BundleError where it is damaged."""
    path = bundle.path / CALIBRATION
    if not os.path.lexists(path):
        raise CalibrationError(
            f"{bundle.path} is not calibrated: run `diffood calibrate {bundle.path} --images DIR` "
            "with in-distribution images that neither model was trained on."
        )
    data = read_regular(bundle.path, CALIBRATION, MAX_CALIBRATION_BYTES, remedy="remove it and calibrate again")
    try:
        return Calibration.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(f"{path} does not hold: {first_problem(error)}. Calibrate again.") from None


def load_calibrated_fusion(bundle: Bundle, calibration: Calibration | None) -> Fusion | None:
    """The fusion a calibration was fitted with, None where there is none. Raises BundleError as `load_fusion` does."""
    return load_fusion(bundle, calibration.fusion) if calibration and calibration.fusion else None


def save_calibration(bundle: Bundle, calibration: Calibration) -> Path:
    """Write the calibration into the bundle, in one move, and keep the one before; returns its path.

    BundleError where the folder of kept ones is a link or no folder.
    """
    path, data = bundle.path / CALIBRATION, (calibration.model_dump_json(indent=1) + "\n").encode()
    _keep_previous(bundle, data)
    write_atomically(path, data)
    return path


def _keep_previous(bundle: Bundle, new: bytes) -> None:
    """Copy calibration.json to a name that is its hash, unless it is missing, damaged, a link or equal to the new."""
    folder = kept_folder(bundle)
    try:
        data = read_regular(bundle.path, CALIBRATION, MAX_CALIBRATION_BYTES)
        Calibration.model_validate_json(data)
    except (BundleError, ValidationError):
        return
    if data != new:
        folder.mkdir(exist_ok=True)
        write_atomically(folder / _kept_name(data), data)


def list_kept(bundle: Bundle) -> dict[str, Calibration]:
    """Earlier calibrations by file name, in its order; BundleError where one is damaged, changed or a link."""
    kept, remedy = {}, "remove it; the bundle's own calibration does not need it"
    for path in sorted(kept_folder(bundle).glob("*.json")):
        data = read_regular(path.parent, path.name, MAX_CALIBRATION_BYTES, remedy)
        if path.name != _kept_name(data):
            raise BundleError(f"{path} was changed after it was kept: its name is not its hash; {remedy}.")
        try:
            kept[path.name] = Calibration.model_validate_json(data)
        except ValidationError as error:
            raise BundleError(f"{path} does not hold: {first_problem(error)}; {remedy}.") from None
    return kept


def _kept_name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:KEPT_DIGITS]}.json"
