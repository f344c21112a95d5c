"""Attack: a manifest that says something else of the same graphs, with the hash of that, in a calibrated bundle.

Whatever a score or a row uses is refused, or ends the calibration; what changes no row is told apart, field by field.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from attacks import undone
from cheap_calibration import calibrate_cheaply
from sealed import edit_record
from small_models import SMALL_BUNDLE

from diffood.errors import CalibrationError, DiffoodError
from diffood.runtime.bundle.bundle import GraphEntry, Manifest, ModelEntry, UNetEntry
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import Pixels

Fields = dict[str, Any]
Outcome = Literal["refused", "not calibrated", "the same rows"]
Case = tuple[Callable[[Fields], object], Outcome]


def graph(**changes: object) -> Callable[[Fields], object]:
    """Change the entry of the one step graph that the calibrated plan takes."""
    return lambda fields: next(one for one in fields["graphs"] if one["role"] == "step_plain").update(changes)


def swap_steps(fields: Fields) -> None:
    for one in fields["graphs"]:
        one["role"] = {"step_plain": "step_guided", "step_guided": "step_plain"}.get(one["role"], one["role"])


CASES: dict[str, list[Case]] = {
    "format": [(lambda fields: fields.update(format=2), "refused")],
    "image": [
        (lambda fields: fields["image"].update(channels=3), "refused"),
        (lambda fields: fields["image"].update(height=27), "refused"),
        (lambda fields: fields["image"].update(width=29), "refused"),
    ],
    "class_names": [
        (lambda fields: fields["class_names"].append(fields["class_names"].pop(0)), "not calibrated"),
        (lambda fields: fields["class_names"].__setitem__(3, "Cat"), "not calibrated"),
        (lambda fields: fields["class_names"].pop(), "refused"),
    ],
    "feature_count": [(lambda fields: fields.update(feature_count=64), "refused")],
    "classifier.origin": [(lambda fields: fields["classifier"].update(origin="elsewhere"), "the same rows")],
    "classifier.weights_sha256": [
        (lambda fields: fields["classifier"].update(weights_sha256="0" * 64), "the same rows"),
    ],
    "classifier.parameters": [(lambda fields: fields["classifier"].update(parameters=1), "the same rows")],
    "unet": [(lambda fields: fields.update(unet=None), "refused")],
    "unet.origin": [(lambda fields: fields["unet"].update(origin="elsewhere"), "the same rows")],
    "unet.weights_sha256": [(lambda fields: fields["unet"].update(weights_sha256="0" * 64), "the same rows")],
    "unet.parameters": [(lambda fields: fields["unet"].update(parameters=1), "the same rows")],
    "unet.prediction": [
        (lambda fields: fields["unet"].update(prediction="v_prediction"), "not calibrated"),
        (lambda fields: fields["unet"].update(prediction="sample"), "not calibrated"),
    ],
    "unet.labels": [
        (lambda fields: fields["unet"].update(labels="none"), "refused"),
        (lambda fields: fields["unet"].update(labels="class"), "the same rows"),  # only tune asks for the null class
    ],
    "unet.label_count": [(lambda fields: fields["unet"].update(label_count=3), "the same rows")],
    "unet.schedule_origin": [(lambda fields: fields["unet"].update(schedule_origin="elsewhere"), "the same rows")],
    "noise_levels": [
        (lambda fields: fields.update(noise_levels="golden.npz"), "refused"),
        (lambda fields: fields.update(noise_levels=None), "refused"),
    ],
    "golden": [(lambda fields: fields.update(golden="noise_levels.npz"), "the same rows")],  # verify refuses it
    "graphs": [(swap_steps, "refused"), (lambda fields: fields["graphs"].pop(0), "refused")],
    "graphs.role": [(graph(role="classify"), "refused")],
    "graphs.file": [(graph(file="step_guided.onnx"), "refused")],
    "graphs.data": [(graph(data="step_guided.onnx"), "not calibrated")],
    "graphs.precision": [(graph(precision="int8"), "refused")],
    "graphs.opset": [(graph(opset=1), "the same rows")],
    "graphs.error": [(graph(error=1.0), "the same rows")],
    "graphs.weights": [(graph(weights={}), "the same rows")],
    "plans": [(lambda fields: [plan.update(seed=1) for plan in fields["plans"].values()], "the same rows")],
    "default_plan": [(lambda fields: fields.update(default_plan="fast"), "the same rows")],  # the calibration's serves
    "files": [
        (lambda fields: fields["files"]["step_plain.onnx"].update(sha256="0" * 64), "refused"),
        (lambda fields: fields["files"].pop("step_plain.onnx"), "refused"),
    ],
    "versions": [(lambda fields: fields["versions"].update(torch="0"), "the same rows")],
    "latent": [
        (
            lambda fields: fields.update(latent={**fields["classifier"], "channels": 1, "height": 28, "width": 28}),
            "refused",
        ),
    ],
}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Iterator[Path]:
    """A calibrated bundle, whose plan takes the step graph without guidance."""
    path = Path(shutil.copytree(SMALL_BUNDLE, tmp_path_factory.mktemp("meaning") / "bundle"))
    yield calibrate_cheaply(path, clothes_folder, 0.2)


def rows_of(path: Path, images: Pixels) -> list[tuple[Any, ...]]:
    detector = Detector.open(path, backend="onnxruntime-cpu", precision="fp32", batch=4, threads=1)
    found = detector.predict(images[:4, None])
    numbers = (found.score.tolist(), found.p_value.tolist(), found.threshold.tolist(), found.is_ood.tolist())
    return list(zip(*numbers, found.class_name, strict=True))


def outcome_of(path: Path, images: Pixels, expected: list[tuple[Any, ...]]) -> str:
    try:
        found = rows_of(path, images)
    except CalibrationError:
        return "not calibrated"
    except DiffoodError:
        return "refused"
    return "the same rows" if found == expected else "other rows"


def test_a_manifest_with_another_meaning_gives_no_other_row(
    calibrated: Path, clothes: Pixels, subtests: pytest.Subtests
) -> None:
    expected = rows_of(calibrated, clothes)
    for field, cases in CASES.items():
        for number, (change, outcome) in enumerate(cases):
            with subtests.test(field=field, number=number), undone(calibrated):
                edit_record(calibrated / "manifest.json", change)
                assert outcome_of(calibrated, clothes, expected) == outcome


def test_every_field_of_a_manifest_is_tried() -> None:
    inner = {"classifier": ModelEntry, "unet": UNetEntry, "graphs": GraphEntry}
    fields = {*Manifest.model_fields} - {"classifier"}
    fields |= {f"{name}.{field}" for name, model in inner.items() for field in model.model_fields}
    assert CASES.keys() == fields
