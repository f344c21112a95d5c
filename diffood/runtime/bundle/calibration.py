"""calibration.json: the threshold, what it guarantees, the scores it was fitted on, and what it is valid for."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from diffood.errors import BundleError, CalibrationError
from diffood.runtime.backends import Backend, RecordedBackend
from diffood.runtime.bundle.bundle import CALIBRATION, KEPT, Bundle, Precision, Role, Sha256, kept_folder
from diffood.runtime.bundle.detection import DetectionRecord
from diffood.runtime.bundle.files import hash_record, record_bytes
from diffood.runtime.bundle.fusion import Fusion, FusionRecord, load_fusion
from diffood.runtime.bundle.graphs import step_role
from diffood.runtime.bundle.guarantees import describe_class_promises, describe_promise
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.method.noise import NOISE_RULE
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.promises import CLOSE, Demand, Method
from diffood.runtime.method.schedule import Prediction
from diffood.runtime.printable import shell_word
from diffood.runtime.records import Record, Text, explain_invalid

KEPT_DIGITS = 12  # of the sha256; a bundle sees some dozens of calibrations


MAX_CALIBRATION_BYTES = 256 * 2**20  # two million images: a score, a class and a hash each


ClassIndex = Annotated[int, Field(ge=0, lt=2**31)]


class Fingerprint(Record):
    """Everything a row depends on. Equal fingerprints give equal scores and names: one calibration is valid for both.

    Attributes:
        classify_sha256: Hash of the classifier's graph, its preprocessing included.
        step_sha256: Of the step graph; None for a plan that denoises nothing.
        noise_levels_sha256: Of the file of the noise levels; None for a bundle without a UNet.
        precision: Of the graphs.
        backend: What runs them.
        engine_sha256: Of the engine's files; None where a library runs the graphs themselves.
        image: What images are resized and converted to.
        noised: (C, H, W) of what is noised and denoised.
        prediction: What the UNet predicts; None for a bundle without one.
        feature_count: Length of the features.
        class_names_sha256: Of the names of the classes as JSON, in their order.
        noise_rule: How noise is drawn.
        plan: The plan.
        fusion_sha256: Of the fusion's record; None for a plan of one witness.
        encode_sha256: Of the graph into latents; None if images are denoised as they are.
        decode_sha256: Of the graph back.
    """

    classify_sha256: Sha256
    step_sha256: Sha256 | None = None
    noise_levels_sha256: Sha256 | None = None
    precision: Precision
    backend: RecordedBackend
    engine_sha256: Sha256 | None = None
    image: ImageShape
    noised: tuple[int, int, int]
    prediction: Prediction | None
    feature_count: int
    class_names_sha256: Sha256
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
    """What the rows of a plan depend on, on a backend and in a precision of a bundle."""
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
        noised=manifest.noised_shape,
        prediction=manifest.unet.prediction if manifest.unet else None,
        feature_count=manifest.feature_count,
        class_names_sha256=hashlib.sha256(json.dumps(manifest.class_names).encode()).hexdigest(),
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
        detection: Of labelled OOD examples; None where none were given.
        images: sha256 of every file that was used, for the fusion too, ascending; None if that was not kept.
    """

    format: Literal[1] = 1
    method: Method
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
    detection: DetectionRecord | None = None
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

    @model_serializer(mode="wrap")
    def _without_absent_detection(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Calibrations without OOD examples keep the bytes, and the hash, that they had before there were any."""
        fields: dict[str, Any] = handler(self)
        if self.detection is None:
            fields.pop("detection", None)
        return fields

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

    def require_true(self, names: Sequence[str]) -> None:
        """Compute again all that follows from the scores. names: of the classes.

        Raises ValueError for the first value that is another than it follows from the method, alpha, delta and scores.
        """
        if (self.delta is None) == (self.method == "pac"):
            raise ValueError(f"delta: {self.delta} does not go with the method {self.method}")
        promises = len(names) + 1 if self.per_class else 1
        demand = Demand(self.method, self.alpha, self.delta and self.delta / promises)
        bound = demand.bound(self.scores, self.threshold, self.allowed_above)
        if self.per_class:
            sentence = self._describe_true_classes(self.per_class, demand, bound, names)
        else:
            sentence = describe_promise(self.method, self.alpha, self.delta, self.n, bound)
        if self.guarantee != sentence:
            raise ValueError(f"guarantee: it is not the one that the scores give, {sentence!r}")

    def _describe_true_classes(
        self, per_class: ClassThresholds, demand: Demand, bound: float, names: Sequence[str]
    ) -> str:
        """The guarantee of per-class thresholds; raises ValueError as `require_true` does. bound: of all images."""
        scores: dict[int, list[float]] = {k: [] for k in range(len(names))}
        if (last := max(per_class.classes)) >= len(names):
            raise ValueError(f"per_class.classes: class {last} does not exist, there are {len(names)} from 0")
        for score, k in zip(self.scores, per_class.classes, strict=True):
            scores[k].append(score)
        if not demand.needs(per_class.needed):
            raise ValueError(f"per_class.needed: {per_class.needed} is not what alpha and delta give")
        for entry in per_class.thresholds:
            try:
                found = demand.bound(scores[entry.predicted], entry.threshold, entry.allowed_above)
            except ValueError as error:
                raise ValueError(f"per_class, class {entry.predicted}, {error}") from None
            if not math.isclose(entry.bound, found, rel_tol=CLOSE):
                raise ValueError(f"per_class, class {entry.predicted}, bound: {entry.bound} is not {found}")
        bounds, own = [entry.bound for entry in per_class.thresholds], self.own_thresholds
        fell_back = [(k, len(scores[k]), per_class.needed) for k in range(len(names)) if k not in own]
        overall = max(bounds, default=0.0) + (bound if fell_back else 0.0)
        if not math.isclose(per_class.overall_bound, overall, rel_tol=CLOSE):
            raise ValueError(f"per_class.overall_bound: {per_class.overall_bound} is not {overall}")
        return describe_class_promises(self.alpha, self.delta, per_class.overall_bound, bounds, fell_back, names)

    @property
    def sha256(self) -> str:
        """The hash that its file carries; what was made for this calibration names it."""
        return hash_record(self)

    @property
    def own_thresholds(self) -> dict[int, float]:
        """Thresholds by predicted class, of the classes that have their own; empty if all share one."""
        return {entry.predicted: entry.threshold for entry in self.per_class.thresholds} if self.per_class else {}

    def summary(self) -> dict[str, Any]:
        """The same as plain values, without the lists that have one entry per image."""
        return self.model_dump(mode="json", exclude={"scores": True, "images": True, "per_class": {"classes"}})


def load_calibration(bundle: Bundle) -> Calibration:
    """Read the bundle's calibration. Raises CalibrationError if there is none, BundleError if it is invalid."""
    path = bundle.path / CALIBRATION
    if not os.path.lexists(path):
        raise CalibrationError(
            f"{bundle.path} is not calibrated: run `diffood calibrate {shell_word(bundle.path)} --images DIR` "
            "with in-distribution images that neither model was trained on."
        )
    return _read(bundle, CALIBRATION, "remove it and calibrate again")


def _read(bundle: Bundle, name: str, remedy: str) -> Calibration:
    """A calibration of which all that can be computed again is true. Raises BundleError for another."""

    def require_true(calibration: Calibration) -> None:
        with explain_invalid(str(bundle.path / name), remedy, BundleError):
            calibration.require_true(bundle.manifest.class_names)

    return bundle.unlisted.read_record(name, Calibration, MAX_CALIBRATION_BYTES, remedy, require_true)


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
    folder, previous = kept_folder(bundle), _current(bundle)
    if previous is not None and previous.sha256 != calibration.sha256:
        folder.mkdir(exist_ok=True)
        bundle.unlisted.write_record(f"{KEPT}/{_kept_name(previous)}", previous)
    return bundle.unlisted.write_record(CALIBRATION, calibration)


def _current(bundle: Bundle) -> Calibration | None:
    """The bundle's calibration; None if it is missing, damaged or a link."""
    try:
        return find_calibration(bundle)
    except BundleError:
        return None


def current_name(bundle: Bundle) -> str | None:
    """The name that the bundle's calibration is kept under once it is replaced; None if there is no valid one."""
    current = _current(bundle)
    return None if current is None else _kept_name(current)


def list_kept(bundle: Bundle) -> dict[str, Calibration]:
    """Earlier calibrations by file name, sorted, without the one in force.

    Raises BundleError if one is damaged, changed or a link.
    """
    kept, remedy, current = {}, "remove it; the bundle's own calibration does not need it", current_name(bundle)
    for path in sorted(kept_folder(bundle).glob("*.json")):
        name = f"{KEPT}/{path.name}"
        found = _read(bundle, name, remedy)
        if path.stem != bundle.unlisted.hashes[name][:KEPT_DIGITS]:
            raise BundleError(f"{path} was changed after it was kept: its name is not its hash; {remedy}.")
        if path.name != current:
            kept[path.name] = found
    return kept


def _kept_name(calibration: Calibration) -> str:
    return f"{hashlib.sha256(record_bytes(calibration)).hexdigest()[:KEPT_DIGITS]}.json"
