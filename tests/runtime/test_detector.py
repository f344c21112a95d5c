"""The detector: what arrays it takes, what it answers on files, and which plan and calibration it runs with."""

import dataclasses
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from small_models import SMALL_BUNDLE

from diffood.calibration.calibrate import calibrate
from diffood.calibration.scored_files import score_sources
from diffood.errors import BundleError, CalibrationError, MissingExtraError, UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import Calibration, load_calibration, save_calibration
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import PLAIN, Plan
from diffood.runtime.results import Verdict
from diffood.runtime.sessions import Session, StageTensors
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


class Spoilt:
    """A session of which one output has values that are not finite in some rows."""

    def __init__(self, session: Session, name: str, value: float) -> None:
        self._session, self._name, self._value = session, name, value
        self.backend, self.precision, self.engine_sha256 = session.backend, session.precision, session.engine_sha256
        self.batch, self.threads = session.batch, session.threads

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        found = dict(self._session.run(stage, feeds))
        found[self._name] = found[self._name].copy()
        found[self._name][1:3].reshape(2, -1)[:, 0] = self._value
        return found


def test_values_that_are_not_finite_are_flagged_and_leave_others_alone(
    detector: Detector, calibrated: Path, clothes: npt.NDArray[np.uint8], subtests: pytest.Subtests
) -> None:
    calibration = load_calibration(open_bundle(calibrated))
    expected = detector.score(clothes[:4])
    # `sound` is 0 for a denoised image that was not finite, whose distance may be
    for name, value in [("logits", np.nan), ("logits", -np.inf), ("features", np.inf), ("jump", np.nan), ("sound", 0)]:
        with subtests.test(name=name, value=value):
            spoilt = Detector(detector.bundle, CHEAP, Spoilt(detector.session, name, value))
            found = [result.checked for _, result in spoilt.stream(enumerate(clothes[:4, None]))]
            assert np.isnan(found).tolist() == [False, True, True, False]
            assert (found[0], found[3]) == (expected.score[0], expected.score[3])
            decisions = DecisionRule.of(calibration).decide(np.array(found), expected.predicted)
            assert decisions.is_ood[1:3].all()
            assert decisions.p_values[1:3].tolist() == [1 / (calibration.n + 1)] * 2


def test_images_of_another_shape_or_type_are_refused_before_the_engine(detector: Detector) -> None:
    for image in (np.zeros((28, 28), np.uint8), np.zeros((1, 28, 28), np.float32), np.zeros((3, 28, 28), np.uint8)):
        with pytest.raises(UsageError, match=r"give uint8 \(1, 28, 28\)"):
            list(detector.stream([("a", image)]))


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


def test_every_kind_of_image_has_the_verdict_of_its_file(
    calibrated: Path, clothes_folder: Path, subtests: pytest.Subtests
) -> None:
    detector = Detector.open(calibrated, batch=8, threads=1)
    path = sorted(clothes_folder.rglob("*.png"))[0]
    expected = detector.predict([path])
    array = np.asarray(Image.open(path))
    for given in (str(path), path, path.read_bytes(), Image.open(path), array, array[None], [array], (path,)):
        with subtests.test(given=type(given)):
            found = detector.predict(given)
            assert len(found) == 1
            assert (found.score, found.p_value) == (expected.score, expected.p_value)
            assert detector.score(given).score == expected.score
    large = array.repeat(3, axis=0).repeat(2, axis=1)[..., None].repeat(3, axis=2)
    [verdict] = detector.predict(large)
    assert verdict.note == "converted from RGB to grey; resized from 56x84 and stretched"
    whole = detector.predict(clothes_folder)
    assert len(whole) == 80
    np.testing.assert_array_equal(whole.score[0], expected.score[0])
    for floats in (array / 255, from_pixels(array)[None, None]):
        for ask in (detector.predict, detector.score):
            with pytest.raises(UsageError, match=r"float.* cannot be used: pixels are uint8"):
                ask(floats)


def test_verdicts_are_rows(
    calibrated: Path, clothes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector.open(calibrated, batch=8, threads=1)
    path, missing = sorted(clothes_folder.rglob("*.png"))[0], tmp_path / "nowhere.png"
    verdicts = detector.predict([path, missing])
    good, refused = verdicts
    assert (good, len(verdicts)) == (verdicts[-2], 2)
    assert (good.id, refused.id) == (path.as_posix(), missing.as_posix())
    assert good.class_name == detector.bundle.manifest.class_names[good.predicted_class]
    scores = detector.score([path, missing])
    assert (len(scores), scores.id, scores.error) == (2, verdicts.id, verdicts.error)
    assert good.confidence == scores.confidence[0]
    assert (good.score, good.error) == (scores.score[0], "")
    assert (refused.is_ood, refused.predicted_class, refused.class_name) == (True, -1, "")
    assert "cannot be read" in refused.error
    for index in (2, -3):
        with pytest.raises(IndexError):
            verdicts[index]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        verdicts.to_pandas()


def test_verdicts_become_a_table(calibrated: Path, clothes_folder: Path) -> None:
    pytest.importorskip("pandas")
    detector = Detector.open(calibrated, batch=8, threads=1)
    verdicts = detector.predict([*sorted(clothes_folder.rglob("*.png"))[:2], b"broken"])
    table = verdicts.to_pandas()
    assert list(table.columns) == [field.name for field in dataclasses.fields(Verdict)]
    assert table["score"].to_numpy()[:2].tolist() == verdicts.score[:2].tolist()
    assert table["is_ood"].dtype == bool
    assert table["error"].str.contains("not an image").tolist() == [False, False, True]
    assert list(detector.predict([]).to_pandas().columns) == list(table.columns)


def test_what_happens_is_logged_under_the_packages_name(
    calibrated: Path, clothes_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="diffood")
    detector = Detector.open(calibrated, batch=8, threads=1)
    detector.predict([np.zeros((9, 9, 3), np.uint8), "no\x1b[31mwhere.png"])
    assert {record.name.partition(".")[0] for record in caplog.records} == {"diffood"}
    opened, changed, refused = (record.getMessage() for record in caplog.records)
    assert opened.startswith(f"Opened {calibrated}: fp32 on onnxruntime-cpu")
    assert changed == "0: converted from RGB to grey; resized from 9x9"
    assert refused.startswith("no\\x1b[31mwhere.png was refused: The file cannot be read")
    handlers = logging.getLogger("diffood").handlers
    assert [type(handler) for handler in handlers] == [logging.NullHandler]  # silent unless asked for


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
        refused = pytest.raises(UsageError, match=f"A batch of {batch} images is not possible: choose 1 to 4096")
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
