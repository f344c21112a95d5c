"""Attack: a calibration.json with the hash of what it says, whose threshold or promise is not what its scores give."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attacks import reopened, undone
from cheap_calibration import CHEAPEST
from sealed import edit_record
from small_models import SMALL_BUNDLE

from diffood.calibration.calibrate import calibrate_files
from diffood.calibration.inspection import inspect_bundle
from diffood.calibration.verify import VerifyRequest, verify_bundle
from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs

Fields = dict[str, Any]
Lie = Callable[[Fields], object]


def calibrated(folder: Path, images: Path, per_class: bool) -> Path:
    path = Path(shutil.copytree(SMALL_BUNDLE, folder / "bundle"))
    detector = Detector.load(open_bundle(path), CHEAPEST, batch=8, threads=1)
    rate, method = (0.1, "conformal") if per_class else (0.2, "pac")  # of eighty images, few classes have nine
    calibrate_files(detector, list_inputs([str(images)]), rate, 0.95, method, per_class=per_class).save()
    assert bool(load_calibration(open_bundle(path)).own_thresholds) == per_class
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Iterator[Path]:
    """A bundle calibrated with one threshold for all classes."""
    yield calibrated(tmp_path_factory.mktemp("plain"), clothes_folder, per_class=False)


@pytest.fixture(scope="module")
def by_class(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Iterator[Path]:
    """A bundle some of whose classes have their own threshold."""
    yield calibrated(tmp_path_factory.mktemp("by_class"), clothes_folder, per_class=True)


def scaled(fields: Fields, by: float) -> None:
    fields["scores"] = [by * score for score in fields["scores"]]


def rename_rarest_class(classes: list[int], name: int) -> None:
    rarest = min(set(classes), key=classes.count)
    classes[:] = [name if k == rarest else k for k in classes]


LIES: dict[str, tuple[Lie, str]] = {
    "a threshold beyond every score": (lambda fields: fields.update(threshold=1e308), "threshold: 1e\\+308 is not"),
    "a threshold of the next score": (
        lambda fields: fields.update(threshold=fields["scores"][-fields["allowed_above"]]),
        "threshold: .* is not the one that the scores give",
    ),
    "more above it": (lambda fields: fields.update(allowed_above=fields["allowed_above"] + 1), "allowed_above: .* of"),
    "fewer above it": (
        lambda fields: fields.update(
            allowed_above=fields["allowed_above"] - 1, threshold=fields["scores"][-fields["allowed_above"]]
        ),
        "allowed_above: .* does not follow from pac, alpha 0.2, delta",
    ),
    "a smaller rate": (lambda fields: fields.update(alpha=0.01), "allowed_above"),
    "a rate a little smaller": (lambda fields: fields.update(alpha=0.1999), "guarantee: it is not the one"),
    "more confidence": (lambda fields: fields.update(delta=1e-9), "allowed_above"),
    "no confidence": (lambda fields: fields.update(delta=None), "delta: None does not go with the method pac"),
    "another method": (lambda fields: fields.update(method="quantile"), "delta: 0.05"),
    "another method, its delta too": (lambda fields: fields.update(method="conformal", delta=None), "allowed_above"),
    "a promise of one in a million": (
        lambda fields: fields.update(guarantee=fields["guarantee"].replace("20.00%", "0.0001%")),
        "guarantee: it is not the one that the scores give, 'With 95.0% confidence",
    ),
    "more detection": (
        lambda fields: fields.update(detection={"images": 100, "flagged": 90, "delta": 0.05, "bound": 0.9}),
        "detection: bound: 0.9 is not what 90 of 100 give, 0.8",
    ),
    "more examples than memory": (
        lambda fields: fields.update(detection={"images": 10**12, "flagged": 1, "delta": 0.05, "bound": 0.1}),
        "detection.images: Input should be less than or equal to 1000000",
    ),
    "more detected than there are": (
        lambda fields: fields.update(detection={"images": 100, "flagged": 101, "delta": 0.05, "bound": 0.9}),
        "detection: 101 of 100 OOD examples are flagged; that is not possible",
    ),
    "other scores": (lambda fields: scaled(fields, 0.5), "threshold: .* is not the one that the scores give"),
}
CLASS_LIES: dict[str, tuple[Lie, str]] = {
    "a threshold beyond every score": (
        lambda fields: fields["per_class"]["thresholds"][0].update(threshold=1e308),
        "per_class, class [0-9], threshold: 1e\\+308 is not",
    ),
    "a smaller bound": (
        lambda fields: fields["per_class"]["thresholds"][0].update(bound=0.001),
        "per_class, class [0-9], bound: 0.001 is not",
    ),
    "a smaller bound of all": (
        lambda fields: fields["per_class"].update(overall_bound=0.001),
        "per_class.overall_bound: 0.001 is not",
    ),
    "a class that no threshold needs": (
        lambda fields: fields["per_class"].update(needed=10**6, thresholds=[]),
        "per_class.needed: 1000000 is not",
    ),
    "a class that does not exist": (
        lambda fields: rename_rarest_class(fields["per_class"]["classes"], 10),
        "per_class.classes: class 10 does not exist, there are 10 from 0",
    ),
    "another promise": (
        lambda fields: fields.update(guarantee="At most 0.01% of images are flagged."),
        "guarantee: it is not the one that the scores give, 'On average",
    ),
}


def test_what_does_not_follow_from_the_scores_is_refused(
    plain: Path, by_class: Path, subtests: pytest.Subtests
) -> None:
    for path, lies in ((plain, LIES), (by_class, CLASS_LIES)):
        bundle = open_bundle(path)
        for case, (lie, expected) in lies.items():
            with subtests.test(case=case), undone(path):
                edit_record(path / "calibration.json", lie)
                with pytest.raises(BundleError, match=rf"calibration\.json is invalid: {expected}") as refused:
                    load_calibration(reopened(bundle))
                assert str(refused.value).isprintable()
                assert str(refused.value).endswith("; remove it and calibrate again.")


def test_no_door_takes_such_a_calibration(plain: Path) -> None:
    doors: list[Callable[[Path], object]] = [
        lambda path: Detector.open(path, batch=8, threads=1),
        inspect_bundle,
        lambda path: verify_bundle(VerifyRequest(path, batch=8, threads=1)),
    ]
    with undone(plain):
        edit_record(plain / "calibration.json", lambda fields: fields.update(threshold=9.35))
        for door in doors:
            with pytest.raises(BundleError, match=r"threshold: 9\.35 is not the one that the scores give"):
                door(plain)


def test_a_key_twice_is_refused_wherever_it_stands(plain: Path, subtests: pytest.Subtests) -> None:
    for name in ("calibration.json", "manifest.json", "detector.json"):
        text = (plain / name).read_text()
        for key in ("format", "plan", "threshold"):
            with subtests.test(name=name, key=key), undone(plain):
                if f'"{key}":' not in text:
                    continue
                value = json.dumps(1e308)
                (plain / name).write_text(text.replace(f'"{key}":', f'"{key}": {value}, "{key}":', 1))
                with pytest.raises(BundleError, match=rf"{name} is invalid: the key '{key}' occurs twice"):
                    inspect_bundle(plain)
