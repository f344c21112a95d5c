"""Attack: a calibration.json that is damaged, contradicts itself, or is no plain file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone
from made_up import calibration_of, fingerprint_of
from sealed import sealed

from diffood.errors import BundleError, CalibrationError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import MAX_CALIBRATION_BYTES, load_calibration, save_calibration
from diffood.runtime.bundle.guarantees import describe_class_promises, describe_promise
from diffood.zoo import CLASS_NAMES

Fields = dict[str, Any]
NAMES = CLASS_NAMES.read_text().splitlines()
SCORES = [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.fixture
def calibration_file(victim: Path) -> Path:
    """A calibration of made-up scores that loads."""
    bundle = open_bundle(victim)
    calibration = calibration_of(
        SCORES,
        0.5,
        method="conformal",
        alpha=0.3,
        guarantee=describe_promise("conformal", 0.3, None, 5, 1 / 6),
        fingerprint=fingerprint_of(bundle.plan("plain")),
    )
    path = save_calibration(bundle, calibration)
    assert load_calibration(open_bundle(victim)) == calibration
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BundleError, match=r"calibration\.json") as caught:
        load_calibration(open_bundle(path.parent))
    message = str(caught.value)
    assert "alibrate again" in message
    assert message.isprintable()
    return message


def changed(name: str, value: object) -> Callable[[Fields], None]:
    return lambda fields: fields.update({name: value})


CHANGES: dict[str, tuple[Callable[[Fields], object], str]] = {
    "unsorted scores": (changed("scores", [0.1, 0.3, 0.2, 0.4, 0.5]), "the scores are not sorted"),
    "NaN score": (changed("scores", [0.1, 0.2, float("nan"), 0.4, 0.5]), "NaN is not a number of JSON"),
    "infinite score": (changed("scores", [0.1, 0.2, 0.3, 0.4, float("inf")]), "Infinity is not a number of JSON"),
    "text for a score": (changed("scores", ["low", 0.2, 0.3, 0.4, 0.5]), "scores.0"),
    "null scores": (changed("scores", None), "scores"),
    "n too large": (changed("n", 6), "n is 6 but 5 scores are stored"),
    "n too small": (changed("n", 4), "n is 4 but 5 scores are stored"),
    "n negative": (changed("n", -5), "n:"),
    "nothing behind it": (lambda fields: fields.update({"n": 0, "scores": []}), "n:"),
    "threshold below too many": (changed("threshold", 0.3), "more than 0 scores lie above the threshold 0.3"),
    "a library to load": (
        lambda fields: fields["fingerprint"].update(backend="onnxruntime-plugin:Theirs@calibrations/theirs.so"),
        "a record may not name a library to load",
    ),
    "NaN threshold": (changed("threshold", float("nan")), "NaN is not a number of JSON"),
    "infinite threshold": (changed("threshold", float("inf")), "Infinity is not a number of JSON"),
    "negative allowed_above": (changed("allowed_above", -1), "allowed_above"),
    "alpha of 0": (changed("alpha", 0), "alpha"),
    "alpha of 1": (changed("alpha", 1), "alpha"),
    "delta of 0": (changed("delta", 0), "delta"),
    "delta of 1": (changed("delta", 1), "delta"),
    "other method": (changed("method", "best"), "method"),
    "other format": (changed("format", 2), "format"),
    "unknown field": (changed("note", "x"), "note"),
    "no fingerprint": (lambda fields: fields.pop("fingerprint"), "fingerprint"),
    "impossible plan": (lambda fields: fields["fingerprint"]["plan"].update(stride=0), "fingerprint.plan.stride"),
}


def by_class(**changes: object) -> Callable[[Fields], None]:
    """Give the five scores classes 7, 7, 0, 7, 0 and class 7 its own threshold, changed."""
    own = {"predicted": 7, "threshold": 0.4, "n": 3, "allowed_above": 0, "bound": 0.25}
    own |= {key: changes.pop(key) for key in own if key in changes}
    whole = {"needed": 3, "overall_bound": 0.25 + 1 / 6, "thresholds": [own], "classes": [7, 7, 0, 7, 0]}
    fell_back = [(k, 2 if k == 0 else 0, 3) for k in range(10) if k != 7]
    sentence = describe_class_promises(0.3, None, 0.25 + 1 / 6, [0.25], fell_back, NAMES)
    return lambda fields: fields.update({"per_class": whole | changes, "guarantee": sentence})


CLASS_CHANGES: dict[str, tuple[Callable[[Fields], object], str]] = {
    "too few classes": (by_class(classes=[7, 7, 0, 7]), "n is 5 but 4 predicted classes are stored"),
    "too many classes": (by_class(classes=[7, 7, 0, 7, 0, 1]), "n is 5 but 6 predicted classes are stored"),
    "negative class": (by_class(classes=[7, 7, -1, 7, 0]), "per_class.classes.2"),
    "class of 10^30": (by_class(classes=[7, 7, 10**30, 7, 0]), "per_class.classes.2"),
    "text for a class": (by_class(classes=[7, 7, "a", 7, 0]), "per_class.classes.2"),
    "half a class": (by_class(classes=[7, 7, 0.5, 7, 0]), "per_class.classes.2"),
    "null classes": (by_class(classes=None), "per_class.classes"),
    "n of the class too large": (by_class(n=4), "class 7 has n 4 but 3 scores"),
    "threshold of a class without images": (by_class(predicted=8), "images where 3 are needed"),
    "threshold of a class with too few": (by_class(needed=4), "class 7 has 3 images where 4 are needed"),
    "no threshold of a class with enough": (by_class(needed=2), "class 0 has 2 images where 2 are needed"),
    "needed is 0": (by_class(needed=0), "per_class.needed"),
    "threshold below too many of the class": (by_class(threshold=0.1), "more than 0 scores of class 7 lie above"),
    "NaN threshold": (by_class(threshold=float("nan")), "NaN is not a number of JSON"),
    "infinite threshold": (by_class(threshold=float("inf")), "Infinity is not a number of JSON"),
    "bound of 0": (by_class(bound=0), "per_class.thresholds.0.bound"),
    "overall bound of 2": (by_class(overall_bound=2), "per_class.overall_bound"),
    "one class twice": (
        lambda fields: (
            by_class()(fields),
            fields["per_class"]["thresholds"].append(fields["per_class"]["thresholds"][0]),
        ),
        "must ascend without repeating, got [7, 7]",
    ),
    "unknown field": (by_class(note="x"), "per_class.note"),
    "a list": (changed("per_class", []), "per_class"),
    "a method without promises": (
        lambda fields: (by_class()(fields), fields.update(method="quantile")),
        "the method quantile, which promises them nothing",
    ),
}


def test_thresholds_by_class_that_agree_load(calibration_file: Path) -> None:
    fields = json.loads(calibration_file.read_bytes())
    by_class()(fields)
    calibration_file.write_bytes(sealed(fields))
    assert load_calibration(open_bundle(calibration_file.parent)).own_thresholds == {7: 0.4}


def test_thresholds_by_class_that_contradict_the_rest_are_refused(
    calibration_file: Path, subtests: pytest.Subtests
) -> None:
    for name, (change, expected) in CLASS_CHANGES.items():
        with subtests.test(name=name), undone(calibration_file.parent):
            fields = json.loads(calibration_file.read_bytes())
            change(fields)
            calibration_file.write_bytes(sealed(fields))
            assert expected in refusal(calibration_file)


def test_a_calibration_that_contradicts_itself_is_refused(calibration_file: Path, subtests: pytest.Subtests) -> None:
    for name, (change, expected) in CHANGES.items():
        with subtests.test(name=name), undone(calibration_file.parent):
            fields = json.loads(calibration_file.read_bytes())
            change(fields)
            calibration_file.write_bytes(sealed(fields))
            assert expected in refusal(calibration_file)


def test_what_is_no_calibration_is_refused(calibration_file: Path, subtests: pytest.Subtests) -> None:
    for data in [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 1_000_000, b'{"a":' * 100_000]:
        with subtests.test(data=data), undone(calibration_file.parent):
            calibration_file.write_bytes(data)
            assert "is invalid" in refusal(calibration_file)


def test_a_sparse_file_above_the_limit_is_refused_unread(calibration_file: Path) -> None:
    with calibration_file.open("r+b") as file:
        file.truncate(MAX_CALIBRATION_BYTES + 1)
    assert f"has {MAX_CALIBRATION_BYTES + 1} bytes where at most {MAX_CALIBRATION_BYTES} are allowed" in refusal(
        calibration_file
    )


@pytest.mark.skipif(os.name != "posix", reason="links and FIFOs as POSIX has them")
def test_links_are_refused_even_to_a_good_calibration(calibration_file: Path, tmp_path: Path) -> None:
    calibration_file.rename(tmp_path / "outside.json")
    calibration_file.symlink_to(tmp_path / "outside.json")
    assert "cannot be opened" in refusal(calibration_file)
    (tmp_path / "outside.json").unlink()
    assert "cannot be opened" in refusal(calibration_file)


@pytest.mark.skipif(os.name != "posix", reason="links and FIFOs as POSIX has them")
def test_a_fifo_or_a_folder_is_refused_at_once(calibration_file: Path) -> None:
    calibration_file.unlink()
    os.mkfifo(calibration_file)
    assert "is not a regular file" in refusal(calibration_file)
    calibration_file.unlink()
    calibration_file.mkdir()
    assert "is not a regular file" in refusal(calibration_file)


def test_no_calibration_at_all_says_how_to_make_one(victim: Path) -> None:
    with pytest.raises(CalibrationError, match="is not calibrated: run `diffood calibrate"):
        load_calibration(open_bundle(victim))
