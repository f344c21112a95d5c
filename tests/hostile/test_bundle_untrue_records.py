"""Attack: a record with the hash of what it says, in which a value is not what the others give.

Which values follow from what is in the table below. What follows from values of the same record or from other files of
the bundle is computed again or compared when it is read; the rest are measurements that only images or a GPU can give
again, a claim of whoever made the record, which a signature vouches for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from attacks import reopened, undone
from full_bundle import complete
from pydantic import BaseModel
from sealed import edit_record

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import Calibration, ClassThreshold, ClassThresholds
from diffood.runtime.bundle.detection import DetectionRecord
from diffood.runtime.bundle.detectors import DetectorEntry, DetectorRecord, read_detector
from diffood.runtime.bundle.engines import EngineRecord, Profile, StageFile, list_engines, read_plan
from diffood.runtime.bundle.parity import CheckRecord, ParityFile, ParityLimits, ParityRecord, SetParity, load_parity
from diffood.runtime.bundle.tuning import MeasuredPlan, TuningMeasurement, TuningRecord, load_measured, load_tuned

Origin = Literal[
    "given",  # by the user, or what is described: nothing to compare it with
    "claim",  # measured; only images or a GPU can give it again
    "follows",  # from other values of the record: computed again when it is read
    "compared",  # with other files of the bundle, or what runs, when it is used
]

ORIGINS: dict[type[BaseModel], dict[str, Origin]] = {
    Calibration: {
        **dict.fromkeys(("format", "method", "alpha", "delta"), "given"),
        **dict.fromkeys(("scores", "set_aside", "images"), "claim"),
        **dict.fromkeys(("n", "allowed_above", "threshold", "guarantee", "per_class", "detection"), "follows"),
        **dict.fromkeys(("fingerprint", "fusion"), "compared"),
    },
    DetectionRecord: {"delta": "given", "images": "claim", "flagged": "claim", "bound": "follows"},
    ClassThresholds: {"classes": "claim", **dict.fromkeys(("needed", "overall_bound", "thresholds"), "follows")},
    ClassThreshold: dict.fromkeys(("predicted", "threshold", "n", "allowed_above", "bound"), "follows"),
    ParityFile: {"format": "given", "records": "follows", "checks": "claim"},
    ParityLimits: {"flips": "given", "auroc_shift": "given"},
    SetParity: {"flips": "follows", **dict.fromkeys(("images", "auroc_reference", "auroc_variant"), "claim")},
    ParityRecord: {
        "limits": "given",
        **dict.fromkeys(("images", "not_finite", "sets", "p_value_shift", "threshold_shift"), "claim"),
        **dict.fromkeys(("images_per_second", "reference_images_per_second"), "claim"),
        **dict.fromkeys(("flips", "flips_to_alarm", "flip_bound", "problems"), "follows"),
        **dict.fromkeys(("reference", "variant", "calibration_sha256"), "compared"),
    },
    CheckRecord: {"variant": "compared", **dict.fromkeys(("what", "outcome", "detail"), "claim")},
    TuningRecord: {"format": "given", "images": "claim", "measured": "follows"},
    TuningMeasurement: {"unit": "given", "limit": "given", "made": "claim", "plans": "follows"},
    MeasuredPlan: {
        **dict.fromkeys(("cost", "low", "high"), "claim"),
        **dict.fromkeys(("auroc", "front", "chosen"), "follows"),
    },
    EngineRecord: {
        "format": "given",
        **dict.fromkeys(("gpu", "driver", "options"), "claim"),
        **dict.fromkeys(("library", "precision", "plan_name", "compute_capability"), "compared"),
        **dict.fromkeys(("library_version", "plan"), "compared"),
        **dict.fromkeys(("profile", "stages"), "follows"),
    },
    Profile: dict.fromkeys(("smallest", "usual", "largest"), "follows"),
    StageFile: dict.fromkeys(("file", "sha256", "size", "built_from"), "compared"),
    DetectorRecord: {
        "format": "given",
        **dict.fromkeys(("plan_name", "plan", "calibration_sha256", "files"), "compared"),
    },
    DetectorEntry: dict.fromkeys(("sha256", "size", "precision", "file", "data", "graphs", "calibrated"), "compared"),
}


def test_the_origin_of_every_value_is_known() -> None:
    for model, origins in ORIGINS.items():
        assert origins.keys() == model.model_fields.keys(), model


Fields = dict[str, Any]
Lie = tuple[Callable[[Fields], object], str]


def judged(**changes: object) -> Callable[[Fields], object]:
    return lambda fields: fields["records"][0].update(changes)


def twice(fields: Fields, key: str) -> None:
    fields[key].append(dict(fields[key][0]))


def measured(place: int, **changes: object) -> Callable[[Fields], object]:
    return lambda fields: fields["measured"]["plans"][place].update(changes)


PARITY: dict[str, Lie] = {
    "problems gone": (judged(flips=500, flips_to_alarm=1), "flip_bound: .* is not what the flips give"),
    "problems gone, bound too": (judged(flips=1000, flip_bound=1.0), "problems: they are not those of the counts"),
    "AUROC moved": (
        lambda fields: fields["records"][0]["sets"]["digits"].update(auroc_variant=0.5),
        "problems: they are not those of the counts and limits, \\['AUROC on digits moves by -49.00 points",
    ),
    "scores that are no numbers": (judged(not_finite=10), r"problems: .*, \[.10 of 1000 scores are not finite"),
    "a problem that is none": (judged(problems=["nothing"]), "problems: they are not those"),
    "a smaller bound": (judged(flip_bound=0.0001), "flip_bound: 0.0001 is not what the flips give"),
    "more flips than images": (judged(flips=1001, flip_bound=1.0), "that is not possible"),
    "more alarms than flips": (judged(flips_to_alarm=2), "that is not possible"),
    "too few images": (judged(images=1, flip_bound=1.0), "images: 1 are too few, 200 are needed"),
    "a set's flips": (
        lambda fields: fields["records"][0]["sets"]["digits"].update(flips=501),
        "501 verdicts flip of 500",
    ),
    "two judgements of a variant": (lambda fields: twice(fields, "records"), "a variant is judged twice"),
    "judged by itself": (
        lambda fields: fields["records"][0].update(variant=fields["records"][0]["reference"]),
        "a variant is judged by itself",
    ),
}
TUNING: dict[str, Lie] = {
    "another front": (measured(3, front=True), "front: it is not that of the costs"),
    "no front": (measured(0, front=False), "front: it is not that of the costs"),
    "two chosen": (measured(0, chosen=True), "exactly one plan is chosen, got 2"),
    "none chosen": (measured(1, chosen=False), "exactly one plan is chosen, got 0"),
    "dearer than allowed": (lambda fields: fields["measured"].update(limit=1.5), "costs 2.0, more than the limit 1.5"),
    "an AUROC outside its interval": (measured(2, high=0.9), "auroc: 0.95 is not in its interval, 0.94 to 0.9"),
    "a hash twice": (lambda fields: fields["images"].append(fields["images"][-1]), "must ascend without repeating"),
    "hashes in another order": (lambda fields: fields["images"].reverse(), "must ascend without repeating"),
}
ENGINE: dict[str, Lie] = {
    "of another library": (lambda fields: fields.update(library="tensorrt"), "holds the engine tensorrt-sm86"),
    "of another GPU": (lambda fields: fields.update(compute_capability="8.9"), "holds the engine .*sm89"),
    "of another precision": (lambda fields: fields.update(precision="fp16"), "holds the engine .*fp16"),
    "of another plan": (lambda fields: fields.update(plan_name="fast"), "holds the engine .*-fast"),
    "a profile that falls": (lambda fields: fields["profile"].update(smallest=65), "65, 16, 64 images do not ascend"),
    "a stage more": (lambda fields: twice(fields, "stages"), "2 engines for a plan of 1 stages|engines for a plan"),
    "another file": (lambda fields: fields["stages"][0].update(file="engine.json"), "engine.json"),
    "another hash": (lambda fields: fields["stages"][0].update(sha256="0" * 64), "was changed after it was built"),
    "another size": (lambda fields: fields["stages"][0].update(size=1), "where at most 1 are allowed"),
}


def entry(**changes: object) -> Callable[[Fields], object]:
    return lambda fields: fields["files"][0].update(changes)


DETECTOR: dict[str, Lie] = {
    "another plan": (lambda fields: fields["plan"].update(seed=1), "computes another plan"),
    "another name of the plan": (lambda fields: fields.update(plan_name="fast"), "computes another plan"),
    "of another calibration": (lambda fields: fields.update(calibration_sha256="0" * 64), "has the calibration 0000"),
    "of none": (lambda fields: fields.update(calibration_sha256=None), "was written before the bundle was calibrated"),
    "another file": (entry(file="classify.onnx"), "is not the file of fp32"),
    "other weights": (entry(data=["classify.onnx"]), "has other files of weights"),
    "no verdicts": (entry(calibrated=False), "gives no verdicts, against what `diffood verify` found"),
    "other graphs": (lambda fields: fields["files"][0]["graphs"].update(classify="0" * 64), "from other graphs"),
    "a precision twice": (lambda fields: twice(fields, "files"), "a precision occurs twice"),
    "another hash": (entry(sha256="0" * 64), "was changed after it was written"),
    "another size": (entry(size=1), "where at most 1 are allowed"),
}


def read_engines(bundle: Bundle) -> None:
    for engine in list_engines(bundle):
        for stage in engine.record.stages:
            read_plan(engine, stage)


READ: dict[str, Callable[[Bundle], object]] = {
    "parity.json": load_parity,
    "tuning.json": lambda bundle: (load_tuned(bundle), load_measured(bundle)),
    "engine.json": read_engines,
    "detector.json": lambda bundle: read_detector(bundle, "fp32"),
}
LIES = {"parity.json": PARITY, "tuning.json": TUNING, "engine.json": ENGINE, "detector.json": DETECTOR}


def test_what_does_not_follow_is_refused(fused: Path, subtests: pytest.Subtests) -> None:
    bundle = open_bundle(complete(fused))
    for name, lies in LIES.items():
        (path,) = fused.rglob(name)
        READ[name](bundle)
        for case, (lie, message) in lies.items():
            with subtests.test(name=name, case=case), undone(fused):
                edit_record(path, lie)
                with pytest.raises(BundleError, match=message) as refused:
                    READ[name](reopened(bundle))
                assert str(refused.value).isprintable()
