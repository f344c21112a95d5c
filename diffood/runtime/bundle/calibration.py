"""calibration.json: the threshold, what it guarantees, the scores it was fitted on, and what it is valid for."""

import hashlib
import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from diffood.errors import BundleError, CalibrationError
from diffood.runtime.backends import Backend, RecordedBackend
from diffood.runtime.bundle.bundle import CALIBRATION, Bundle, Precision, Role, Sha256, kept_folder
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.bundle.files import parse_record, read_regular, record_bytes
from diffood.runtime.bundle.fusion import Fusion, FusionRecord, load_fusion
from diffood.runtime.bundle.graphs import step_role
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.method.noise import NOISE_RULE
from diffood.runtime.method.plan import Plan
from diffood.runtime.records import Record, Text

KEPT_DIGITS = 12  # of the sha256; a bundle sees some dozens of calibrations


MAX_CALIBRATION_BYTES = 256 * 2**20  # two million images: a score, a class and a hash each


ClassIndex = Annotated[int, Field(ge=0, lt=2**31)]


class Fingerprint(Record):
    """Everything a score depends on. Equal fingerprints give equal scores, so one calibration is valid for both."""

    classify_sha256: Sha256
    step_sha256: Sha256 | None = None
    noise_levels_sha256: Sha256 | None = None
    precision: Precision
    backend: RecordedBackend
    engine_sha256: Sha256 | None = None
    image: ImageShape
    noise_rule: Text = NOISE_RULE
    plan: Plan
    fusion_sha256: Sha256 | None = None
    encode_sha256: Sha256 | None = None
    decode_sha256: Sha256 | None = None

    @property
    def short(self) -> str:
        """First eight hexadecimal digits of the fingerprint's own hash."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]

    def is_of(self, bundle: Bundle) -> bool:
        """Whether it is of the graphs, noise levels and noise rule that a bundle has now, on whatever engine."""
        now = fingerprint_of(bundle, self.plan, self.precision, self.backend, self.engine_sha256, self.fusion_sha256)
        return self == now

    def difference(self, other: "Fingerprint") -> str:
        """The fields in which two fingerprints differ, with both values."""
        mine, theirs = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        changed = [key for key in mine | theirs if mine.get(key) != theirs.get(key)]
        return "; ".join(f"{key}: {mine.get(key)} there, {theirs.get(key)} here" for key in changed)


def fingerprint_of(
    bundle: Bundle,
    plan: Plan,
    precision: Precision,
    backend: Backend,
    engine_sha256: Sha256 | None = None,
    fusion_sha256: Sha256 | None = None,
) -> Fingerprint:
    """What the scores of a plan depend on, on a backend and in a precision of a bundle."""
    manifest = bundle.manifest

    def sha256(role: Role) -> Sha256:
        return bundle.sha256(bundle.graph(role, precision))

    return Fingerprint(
        classify_sha256=sha256("classify"),
        step_sha256=sha256(step_role(guided=plan.guidance > 0)) if plan.denoises else None,
        noise_levels_sha256=manifest.files[manifest.noise_levels].sha256 if manifest.noise_levels else None,
        precision=precision,
        backend=backend,
        engine_sha256=engine_sha256,
        image=manifest.image,
        plan=plan,
        fusion_sha256=fusion_sha256,
        encode_sha256=sha256("encode") if manifest.latent else None,
        decode_sha256=sha256("decode") if manifest.latent else None,
    )


def _flat(fields: dict[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": json.dumps(item) for inner, item in value.items()}
        else:
            flat[key] = str(value)[:16]
    return flat


class ClassThreshold(Record):
    """The threshold of one predicted class.

    Attributes:
        predicted: Index of the class.
        threshold: An image of this class is flagged when its score is above.
        n: Calibration images of the class.
        allowed_above: How many of them may lie above the threshold.
        bound: Bound of the class's false-alarm rate, of the kind that the calibration's method gives.
    """

    predicted: ClassIndex
    threshold: float
    n: Annotated[int, Field(ge=1)]
    allowed_above: Annotated[int, Field(ge=0)]
    bound: Annotated[float, Field(gt=0, lt=1)]


class ClassThresholds(Record):
    """Thresholds of predicted classes.

    Attributes:
        needed: Calibration images that a class needs for its own threshold; the others use the global one.
        overall_bound: Bound of the false-alarm rate of all images together. It is up to twice alpha if some classes
            have their own threshold and some do not.
        thresholds: Of the classes that have their own, by ascending class.
        classes: Predicted class of each of the calibration's scores, in their order.
    """

    needed: Annotated[int, Field(ge=1)]
    overall_bound: Annotated[float, Field(gt=0, lt=2)]
    thresholds: tuple[ClassThreshold, ...]
    classes: list[ClassIndex]

    @model_validator(mode="after")
    def _consistent(self) -> "ClassThresholds":
        own = [entry.predicted for entry in self.thresholds]
        if own != sorted(set(own)):
            raise ValueError(f"the classes with their own threshold must ascend without repeating, got {own[:20]}")
        images = Counter(self.classes)
        if enough := {k for k, count in images.items() if count >= self.needed} ^ set(own):
            raise ValueError(f"class {min(enough)} has {images[min(enough)]} images where {self.needed} are needed")
        for entry in self.thresholds:
            if entry.n != images[entry.predicted]:
                raise ValueError(f"class {entry.predicted} has n {entry.n} but {images[entry.predicted]} scores")
        return self


class Calibration(Record):
    """The content of calibration.json. An image is flagged when its score is above the threshold.

    Attributes:
        format: Format of the file.
        method: How the threshold was fitted.
        alpha: Allowed false-alarm rate.
        delta: 1 minus the confidence, for the method pac; None for the others.
        n: Number of calibration images.
        allowed_above: How many of their scores may lie above the threshold.
        threshold: Of all images; classes in `per_class` have their own.
        guarantee: What the threshold guarantees, as a sentence.
        set_aside: Images that could not be used.
        fingerprint: What the scores depend on.
        scores: Of the calibration images, ascending.
        fusion: How witnesses are combined, None for a plan of one witness.
        per_class: Thresholds of predicted classes, None if all share one.
        images: sha256 of every file that was used, for the fusion too, ascending; None if that was not kept.
    """

    format: Literal[1] = 1
    method: Literal["pac", "conformal", "quantile"]
    alpha: Annotated[float, Field(gt=0, lt=1)]
    delta: Annotated[float, Field(gt=0, lt=1)] | None
    n: Annotated[int, Field(ge=1)]
    allowed_above: Annotated[int, Field(ge=0)]
    threshold: float
    guarantee: Text
    set_aside: Annotated[int, Field(ge=0)]
    fingerprint: Fingerprint
    scores: list[float]
    fusion: FusionRecord | None = None
    per_class: ClassThresholds | None = None
    images: tuple[Sha256, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Calibration":
        if len(self.scores) != self.n:
            raise ValueError(f"n is {self.n} but {len(self.scores)} scores are stored")
        if any(b < a for a, b in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("the scores are not sorted")
        if sum(score > self.threshold for score in self.scores) > self.allowed_above:
            raise ValueError(f"more than {self.allowed_above} scores lie above the threshold {self.threshold}")
        if self.per_class:
            self._require_consistent_classes(self.per_class)
        if (self.fusion.sha256 if self.fusion else None) != self.fingerprint.fusion_sha256:
            raise ValueError("the fusion is not the one of the fingerprint")
        plan = self.fingerprint.plan
        if plan.fused != (self.fusion is not None):
            need = "need a fusion, and there is none" if plan.fused else "take no fusion, and there is one"
            raise ValueError(f"the plan's witnesses {list(plan.witnesses)} {need}")
        if self.fusion and (problem := self.fusion.mismatch(plan)):
            raise ValueError(problem)
        return self

    def _require_consistent_classes(self, per_class: ClassThresholds) -> None:
        if self.method == "quantile":
            raise ValueError("thresholds of classes with the method quantile, which promises them nothing")
        if len(per_class.classes) != self.n:
            raise ValueError(f"n is {self.n} but {len(per_class.classes)} predicted classes are stored")
        own = {entry.predicted: entry.threshold for entry in per_class.thresholds}
        above = Counter(k for s, k in zip(self.scores, per_class.classes, strict=True) if s > own.get(k, math.inf))
        for entry in per_class.thresholds:
            if above[entry.predicted] > entry.allowed_above:
                raise ValueError(
                    f"more than {entry.allowed_above} scores of class {entry.predicted} lie above its threshold "
                    f"{entry.threshold}"
                )

    @property
    def own_thresholds(self) -> dict[int, float]:
        """Thresholds by predicted class, of the classes that have their own; empty if all share one."""
        return {entry.predicted: entry.threshold for entry in self.per_class.thresholds} if self.per_class else {}

    def summary(self) -> dict[str, Any]:
        """The same as plain values, without the lists that have one entry per image."""
        return self.model_dump(mode="json", exclude={"scores": True, "images": True, "per_class": {"classes"}})


def load_calibration(bundle: Bundle) -> Calibration:
    """Read the bundle's calibration. Raises CalibrationError if there is none, BundleError if it is damaged."""
    path = bundle.path / CALIBRATION
    if not os.path.lexists(path):
        raise CalibrationError(
            f"{bundle.path} is not calibrated: run `diffood calibrate {bundle.path} --images DIR` "
            "with in-distribution images that neither model was trained on."
        )
    remedy = "remove it and calibrate again"
    return bundle.read_record(CALIBRATION, Calibration, MAX_CALIBRATION_BYTES, remedy)


def find_calibration(bundle: Bundle) -> Calibration | None:
    """The bundle's calibration; None where it has none. Raises BundleError if it is damaged."""
    return load_calibration(bundle) if os.path.lexists(bundle.path / CALIBRATION) else None


def load_calibrated_fusion(bundle: Bundle, calibration: Calibration | None) -> Fusion | None:
    """The fusion a calibration was fitted with, None if it has none. Raises BundleError as `load_fusion` does."""
    return load_fusion(bundle, calibration.fusion) if calibration and calibration.fusion else None


def save_calibration(bundle: Bundle, calibration: Calibration) -> Path:
    """Write the calibration into the bundle, in one move, and keep the previous one; returns its path.

    Raises BundleError if the folder of kept calibrations is a link or not a folder.
    """
    data = record_bytes(calibration)
    _keep_previous(bundle, data)
    return bundle.write_unlisted(CALIBRATION, data)


def _keep_previous(bundle: Bundle, new: bytes) -> None:
    """Copy calibration.json to a name that is its hash, unless it is missing, damaged, a link or equal to the new."""
    folder, data = kept_folder(bundle), _current_bytes(bundle)
    if data is not None and data != new:
        folder.mkdir(exist_ok=True)
        write_durably(folder / _kept_name(data), data)


def _current_bytes(bundle: Bundle) -> bytes | None:
    """The bytes of calibration.json; None if it is missing, damaged or a link."""
    try:
        data = read_regular(bundle.path, CALIBRATION, MAX_CALIBRATION_BYTES)
        parse_record(data, bundle.path / CALIBRATION, Calibration)
    except BundleError:
        return None
    return data


def current_name(bundle: Bundle) -> str | None:
    """The name that the bundle's calibration is kept under once it is replaced; None if there is no valid one."""
    data = _current_bytes(bundle)
    return None if data is None else _kept_name(data)


def list_kept(bundle: Bundle) -> dict[str, Calibration]:
    """Earlier calibrations by file name, sorted, without the one in force.

    Raises BundleError if one is damaged, changed or a link.
    """
    kept, remedy, current = {}, "remove it; the bundle's own calibration does not need it", current_name(bundle)
    for path in sorted(kept_folder(bundle).glob("*.json")):
        data = read_regular(path.parent, path.name, MAX_CALIBRATION_BYTES, remedy)
        if path.name != _kept_name(data):
            raise BundleError(f"{path} was changed after it was kept: its name is not its hash; {remedy}.")
        if path.name != current:
            kept[path.name] = parse_record(data, path, Calibration, remedy)
    return kept


def _kept_name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:KEPT_DIGITS]}.json"
