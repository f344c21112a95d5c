"""The detector: what arrays it takes, what it answers on files, and which plan and calibration it runs with."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from small_models import SMALL_BUNDLE

from diffood.calibration.calibrate import calibrate
from diffood.calibration.scored_files import score_sources
from diffood.errors import BundleError, CalibrationError, UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import Calibration, load_calibration, save_calibration
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import PLAIN, Plan
from diffood.runtime.results import Scores
from diffood.runtime.sessions.cores import usable_cores

# Not the bundle's default, so that a test sees which of the two was taken; three evaluations an image.
CHEAP = PLAIN.changed({"start_times": (240, 480), "stride": 240, "repeats": 1, "guidance": 0.0})


@pytest.fixture(scope="module")
def detector(small_bundle: Bundle) -> Detector:
    """A detector of a cheap plan on the shipped bundle, which is not calibrated."""
    return Detector.load(small_bundle, CHEAP, batch=8, threads=1)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Path:
    """A copy of the shipped bundle, calibrated on eighty files for the cheap plan; read-only."""
    path = Path(shutil.copytree(SMALL_BUNDLE, tmp_path_factory.mktemp("calibrated") / "bundle"))
    detector = Detector.open(path, CHEAP, batch=8, threads=1)
    files = score_sources(detector, list_inputs([str(clothes_folder)]))
    save_calibration(detector.bundle, calibrate(detector, files, alpha=0.1, confidence=0.95, method="pac"))
    return path


def same(a: Scores, b: Scores) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(Scores))


def test_every_accepted_form_of_the_same_images_gives_the_same_scores(
    detector: Detector, clothes: npt.NDArray[np.uint8]
) -> None:
    images = clothes[:5]
    expected = detector.score(images)
    planes = from_pixels(images[:, None])
    forms: list[npt.NDArray[Any]] = [
        images[..., None],
        images[:, None],
        planes,
        np.asfortranarray(images),
        np.asfortranarray(planes),
        images[::-1][::-1],
    ]
    for form in forms:
        assert same(detector.score(form), expected)


def test_scores_have_the_documented_shapes(detector: Detector, clothes: npt.NDArray[np.uint8]) -> None:
    scores = detector.score(clothes[:11])  # more than a batch, and no multiple of it
    assert scores.score.shape == scores.predicted.shape == scores.confidence.shape == (11,)
    assert scores.by_start.shape == (11, 2)
    assert scores.score.dtype == scores.by_start.dtype == scores.confidence.dtype == np.float64
    assert scores.predicted.dtype == np.int64
    assert scores.score == pytest.approx(scores.by_start.mean(axis=1))
    assert np.all((scores.predicted >= 0) & (scores.predicted < len(detector.bundle.manifest.class_names)))
    assert np.all((scores.confidence > 0) & (scores.confidence <= 1))
    assert scores.evaluations.tolist() == [3] * 11
    assert detector.evaluations == 3


def test_no_images_give_no_scores(detector: Detector, subtests: pytest.Subtests) -> None:
    for empty in [np.empty((0, 28, 28), np.uint8), np.empty((0, 1, 28, 28), np.float32)]:
        with subtests.test(empty=empty):
            scores = detector.score(empty)
            assert scores.by_start.shape == (0, 2)
            assert scores.score.shape == scores.predicted.shape == scores.confidence.shape == (0,)


def test_another_shape_or_type_is_refused_with_the_value(detector: Detector, subtests: pytest.Subtests) -> None:
    for images in [
        np.zeros((28, 28), np.uint8),
        np.zeros((2, 27, 28), np.uint8),
        np.zeros((2, 28, 28, 3), np.uint8),
        np.zeros((2, 3, 28, 28), np.uint8),
        np.zeros((2, 1, 1, 28, 28), np.uint8),
        np.zeros((2, 28, 28), np.float32),
        np.zeros((2, 28, 28, 1), np.float32),
        np.zeros((2, 1, 28, 28), np.float64),
        np.zeros((2, 1, 28, 28), np.int64),
        np.zeros((2, 28, 28), bool),
        np.zeros((2, 28, 28), ">f4"),
        np.zeros((), np.uint8),
        np.array([]),
    ]:
        with subtests.test(images=images):
            with pytest.raises(UsageError, match="this bundle takes uint8") as caught:
                detector.score(images)
            message = str(caught.value)
            assert ", ".join(map(str, images.shape[-2:])) in message
            assert str(images.dtype) in message
            assert "[N, 28, 28, 1] or float32 [N, 1, 28, 28] in [-1, 1]" in message


def test_floats_outside_the_range_are_refused_with_the_value(
    detector: Detector, clothes: npt.NDArray[np.uint8]
) -> None:
    with pytest.raises(UsageError, match=r"must lie in \[-1, 1\]; a value of size 255 was given"):
        detector.score(np.full((1, 1, 28, 28), 255, np.float32))
    assert len(detector.score(from_pixels(clothes[:1, None]) * np.float32(1.0001)).score) == 1  # a caller's rounding


def test_pixels_that_are_no_numbers_are_flagged_and_leave_others_alone(
    detector: Detector, calibrated: Path, clothes: npt.NDArray[np.uint8], subtests: pytest.Subtests
) -> None:
    for value in [np.nan, np.inf, -np.inf]:
        with subtests.test(value=value):
            images = from_pixels(clothes[:4][:, None])
            expected = detector.score(images)
            images[1, 0, 14, 14] = value
            images[2] = value
            scores = detector.score(images)
            assert np.isnan(scores.score[1:3]).all()
            assert np.array_equal(scores.score[[0, 3]], expected.score[[0, 3]])
            calibration = load_calibration(open_bundle(calibrated))
            decisions = DecisionRule.of(calibration).decide(scores.score, scores.predicted)
            assert decisions.is_ood[1:3].all()
            assert decisions.p_values[1:3].tolist() == [1 / (calibration.n + 1)] * 2


def test_a_score_does_not_depend_on_the_batch_or_the_order(
    detector: Detector, small_bundle: Bundle, clothes: npt.NDArray[np.uint8]
) -> None:
    images = clothes[:10]
    together = detector.score(images).score
    backwards = detector.score(images[::-1]).score[::-1]
    alone = Detector.load(small_bundle, CHEAP, batch=3, threads=1).score(images).score
    assert backwards == pytest.approx(together, abs=1e-4)  # float32 sums in another order
    assert alone == pytest.approx(together, abs=1e-4)


def test_a_broken_file_among_good_ones_is_reported_and_flagged(
    calibrated: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    good = sorted(clothes_folder.rglob("*.png"))[:3]
    detector = Detector.open(calibrated, batch=8, threads=1)
    verdicts = detector.predict([good[0], tmp_path / "broken.png", str(good[1]), tmp_path / "nowhere.png", good[2]])
    refused = np.array([False, True, False, True, False])
    assert [bool(error) for error in verdicts.error] == refused.tolist()
    assert verdicts.is_ood[refused].all()
    assert np.isnan(verdicts.score[refused]).all()
    assert np.isnan(verdicts.p_value[refused]).all()
    assert verdicts.predicted[refused].tolist() == [-1, -1]
    alone = detector.predict(good)
    assert alone.error == ("", "", "")
    assert verdicts.score[~refused] == pytest.approx(alone.score, abs=1e-4)
    assert np.array_equal(verdicts.predicted[~refused], alone.predicted)
    assert verdicts.is_ood[~refused].tolist() == (verdicts.score > verdicts.threshold)[~refused].tolist()
    assert np.isnan(verdicts.threshold).tolist() == refused.tolist()


def test_files_that_are_all_broken_or_none_at_all_are_answered(calibrated: Path, tmp_path: Path) -> None:
    detector = Detector.open(calibrated, batch=8, threads=1)
    verdicts = detector.predict([tmp_path / "a.png", tmp_path / "b.png"])
    assert verdicts.is_ood.tolist() == [True, True]
    assert all(verdicts.error)
    assert detector.predict([]).is_ood.shape == (0,)


def test_at_most_the_allowed_number_of_calibration_files_is_flagged(calibrated: Path, clothes_folder: Path) -> None:
    detector = Detector.open(calibrated, batch=8, threads=1)
    calibration = detector.calibration()
    verdicts = detector.predict(sorted(clothes_folder.rglob("*.png")))
    assert calibration.n == len(verdicts.score) == 80
    assert sorted(verdicts.score) == pytest.approx(calibration.scores, abs=1e-4)
    # The score on the threshold itself may come out above it in another order of the batch.
    assert int(verdicts.is_ood.sum()) <= calibration.allowed_above + 1


def test_predict_without_calibration_says_how_to_make_one(detector: Detector, clothes_folder: Path) -> None:
    with pytest.raises(CalibrationError, match="is not calibrated: run `diffood calibrate"):
        detector.predict(sorted(clothes_folder.rglob("*.png"))[:1])


def test_open_takes_the_plan_given_else_the_calibrations_else_the_default(
    calibrated: Path, small_bundle_copy: Path
) -> None:
    default = open_bundle(small_bundle_copy).plan()
    assert default != CHEAP
    assert Detector.open(small_bundle_copy, batch=1, threads=1).plan == default
    assert Detector.open(calibrated, batch=1, threads=1).plan == CHEAP
    assert Detector.open(str(calibrated), "default", batch=1, threads=1).plan == default
    other = CHEAP.changed({"seed": 7})
    assert Detector.open(calibrated, other, batch=1, threads=1).plan == other
    with pytest.raises(UsageError, match="No plan 'fastest' in this bundle"):
        Detector.open(calibrated, "fastest", batch=1, threads=1)


def test_a_calibration_of_another_plan_is_refused_with_the_difference(
    calibrated: Path, clothes_folder: Path, subtests: pytest.Subtests
) -> None:
    for overrides, difference in [
        ({"seed": 7}, "plan.seed: 0 there, 7 here"),
        ({"repeats": 2}, "plan.repeats: 1 there, 2 here"),
        ({"guidance": 2.0}, "plan.guidance: 0.0 there, 2.0 here"),
        ({"start_times": (480,)}, r"plan.start_times: \[240, 480\] there, \[480\] here"),
    ]:
        with subtests.test(overrides=overrides, difference=difference):
            detector = Detector.open(calibrated, CHEAP.changed(overrides), batch=8, threads=1)
            with pytest.raises(CalibrationError, match=difference):
                detector.predict(sorted(clothes_folder.rglob("*.png"))[:1])


def test_a_calibration_of_other_weights_is_refused_with_the_difference(
    calibrated: Path, small_bundle_copy: Path
) -> None:
    stored = load_calibration(open_bundle(calibrated))
    foreign = stored.fingerprint.model_copy(update={"classify_sha256": "0" * 64})
    save_calibration(open_bundle(small_bundle_copy), stored.model_copy(update={"fingerprint": foreign}))
    with pytest.raises(CalibrationError, match="classify_sha256: 0000000000000000 there"):
        Detector.open(small_bundle_copy, batch=8, threads=1).calibration()


def test_a_calibration_with_a_plan_beyond_the_schedule_is_refused(calibrated: Path, small_bundle_copy: Path) -> None:
    stored = load_calibration(open_bundle(calibrated))
    late = stored.fingerprint.model_copy(update={"plan": CHEAP.changed({"start_times": (5000,)})})
    save_calibration(open_bundle(small_bundle_copy), stored.model_copy(update={"fingerprint": late}))
    with pytest.raises((UsageError, BundleError), match="5000"):
        Detector.open(small_bundle_copy, batch=8, threads=1)


def test_a_calibration_does_not_depend_on_where_the_bundle_lies(calibrated: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(calibrated, tmp_path / "moved"))
    found: Calibration = Detector.open(moved, batch=2, threads=1).calibration()
    assert found == load_calibration(open_bundle(calibrated))


def test_the_detector_is_to_be_had_from_the_package_itself() -> None:
    import diffood

    assert diffood.Detector is Detector
    with pytest.raises(AttributeError, match="no attribute 'Detektor'"):
        diffood.Detektor  # noqa: B018


def test_an_impossible_batch_is_refused(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for batch in [0, -1, 4097]:
        refused = pytest.raises(UsageError, match=f"A batch of {batch} rows is not possible: choose 1 to 4096")
        with subtests.test(batch=batch), refused:
            Detector.load(small_bundle, CHEAP, batch=batch, threads=1)


def test_a_session_says_how_many_threads_it_works_with(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for threads in [0, 1, 3]:
        with subtests.test(threads=threads):
            detector = Detector.load(small_bundle, CHEAP, batch=8, threads=threads)
            assert detector.session.threads == (threads or usable_cores())


def test_an_impossible_number_of_threads_is_refused(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for threads in [-1, 1025]:
        message = f"{threads} threads are not possible: choose 1 to 1024, or 0 for all cores"
        with subtests.test(threads=threads), pytest.raises(UsageError, match=message):
            Detector.load(small_bundle, CHEAP, batch=8, threads=threads)


def test_the_fingerprint_names_the_graph_that_runs(small_bundle: Bundle, detector: Detector) -> None:
    files = small_bundle.manifest.files
    guided: Plan = CHEAP.changed({"guidance": 2.0})
    assert detector.fingerprint.step_sha256 == files[small_bundle.graph("step_plain").file].sha256
    running = Detector.load(small_bundle, guided, batch=1, threads=1).fingerprint
    assert running.step_sha256 == files[small_bundle.graph("step_guided").file].sha256
    assert detector.fingerprint.classify_sha256 == running.classify_sha256
