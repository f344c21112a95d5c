"""A fused calibration from end to end: saved, opened again, replaced by another; and its use of memory."""

import gc
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fast_plans import FAST, WITH_BANK
from sealed import sealed

from diffood.calibration.calibrate import Calibrated, calibrate_files
from diffood.calibration.evaluate import EvaluateRequest, evaluate_bundle
from diffood.calibration.inspection import inspect_bundle
from diffood.calibration.request import EngineRequest
from diffood.calibration.scored_files import IND
from diffood.errors import CalibrationError
from diffood.runtime.bundle.bundle import CALIBRATION, Bundle, open_bundle
from diffood.runtime.bundle.calibration import list_kept, load_calibration, save_calibration
from diffood.runtime.bundle.fusion import load_fusion
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import DEFAULT
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.pipeline import score_files
from diffood.runtime.sessions import SessionRequest, StageTensors
from diffood.runtime.sessions.onnxruntime import OnnxRuntimeSession
from diffood.zoo.images import unpack_set

BATCH = 8


def test_a_saved_calibration_scores_as_it_did(calibrated: Calibrated, clothes: npt.NDArray[np.uint8]) -> None:
    again = Detector.open(calibrated.detector.bundle.path, batch=BATCH, threads=1)
    assert again.plan == WITH_BANK
    assert again.calibration() == calibrated.calibration
    expected, found = calibrated.detector.score(clothes), again.score(clothes)
    assert found.witnesses.shape == (40, 6)
    assert np.array_equal(found.score, expected.score)
    assert np.array_equal(found.witnesses, expected.witnesses)
    fusion = calibrated.detector.fusion
    assert fusion is not None
    assert fusion.record.score(found.witnesses).tolist() == found.score.tolist()


def test_most_digits_are_flagged(calibrated: Calibrated, digits: npt.NDArray[np.uint8]) -> None:
    """Even one UNet evaluation, on a threshold from 64 images, flags most of them."""
    assert (calibrated.detector.score(digits).score > calibrated.calibration.threshold).mean() > 0.5


def test_an_earlier_calibration_keeps_its_bank(
    calibrated: Calibrated, tmp_path: Path, clothes: npt.NDArray[np.uint8]
) -> None:
    path = Path(shutil.copytree(calibrated.detector.bundle.path, tmp_path / "bundle"))
    unpack_set("fashion-test", tmp_path / "images", 96)
    bundle = open_bundle(path)
    fresh = Detector.load(bundle, WITH_BANK, batch=BATCH, threads=1)
    calibrate_files(fresh, list_inputs([str(tmp_path / "images")]), 0.05, 0.95, "pac").save()

    second = load_calibration(bundle)
    assert second.fusion is not None
    assert second.fusion != calibrated.calibration.fusion
    ((name, kept),) = list_kept(bundle).items()
    assert kept == calibrated.calibration
    assert kept.fusion is not None
    assert sorted(file.suffix for file in (path / "calibrations").iterdir()) == [".json", ".npz", ".npz"]
    old, new = load_fusion(bundle, kept.fusion), load_fusion(bundle, second.fusion)
    assert old.bank is not None
    assert new.bank is not None
    assert not np.array_equal(old.bank["inside"]["means"], new.bank["inside"]["means"])

    save_calibration(bundle, kept)  # back to the earlier one
    assert (path / "calibrations" / name).exists()
    again = Detector.open(path, batch=BATCH, threads=1)
    assert np.array_equal(again.score(clothes[:8]).score, calibrated.detector.score(clothes[:8]).score)


def test_a_detector_from_before_a_new_calibration_does_not_judge_by_it(
    calibrated: Calibrated, tmp_path: Path, clothes_folder: Path
) -> None:
    path = Path(shutil.copytree(calibrated.detector.bundle.path, tmp_path / "bundle"))
    before = Detector.open(path, batch=BATCH, threads=1)
    opened_with = before.calibration()
    unpack_set("fashion-test", tmp_path / "images", 96)
    bare = Detector.load(open_bundle(path), WITH_BANK, batch=BATCH, threads=1)
    calibrate_files(bare, list_inputs([str(tmp_path / "images")]), 0.05, 0.95, "pac").save()
    with pytest.raises(CalibrationError, match=r"fusion_sha256: .* open the bundle again\.$"):
        bare.predict(sorted(clothes_folder.glob("*.png"))[:1])
    assert before.calibration() == opened_with  # what it judges by does not change under it
    assert Detector.open(path, batch=BATCH, threads=1).calibration() != opened_with


def test_a_calibration_of_another_noise_rule_is_refused(calibrated: Calibrated, tmp_path: Path) -> None:
    path = Path(shutil.copytree(calibrated.detector.bundle.path, tmp_path / "bundle"))
    old = json.loads((path / CALIBRATION).read_bytes())
    old["fingerprint"]["noise_rule"] = "philox-box-muller-1"
    (path / CALIBRATION).write_bytes(sealed(old))
    message = r"the noise rule philox-box-muller-1; this version of diffood draws noise by pool-1.*`diffood calibrate "
    with pytest.raises(CalibrationError, match=message):
        Detector.open(path, batch=BATCH, threads=1)
    with pytest.raises(CalibrationError, match=message):
        Detector.open(path, backend="onnxruntime-cpu", precision="fp32", batch=BATCH, threads=1).calibration()
    serves = inspect_bundle(path).serves
    assert serves is not None
    assert (serves.by_default, list(serves.refused)) == ("", ["fp32 on onnxruntime-cpu"])
    assert "noise by the rule pool-1" in serves.refused["fp32 on onnxruntime-cpu"]


def test_an_image_has_one_score_whatever_scores_it(small_bundle_copy: Path, folder: Path) -> None:
    """When it is calibrated on, evaluated and served: in any batch, order and company.

    To the last bit, but in a batch of fewer images than an engine call else has: that makes smaller calls.
    """
    sources = list_inputs([str(folder)])
    detector = Detector.load(open_bundle(small_bundle_copy), DEFAULT, batch=BATCH, threads=1)
    done = calibrate_files(detector, sources, 0.05, 0.95, "pac")
    done.save()
    expected = dict(zip(done.files.ids, done.files.scores.tolist(), strict=True))
    assert len(set(done.files.evaluations.tolist())) == 2  # some images end early, so that later calls are closed up
    for batch, threads, off in ((1, 2, 1e-5), (5, 1, 0), (64, 2, 0)):
        engine = EngineRequest(batch=batch, threads=threads)
        evaluated = evaluate_bundle(EvaluateRequest(small_bundle_copy, (str(folder),), {}, engine=engine)).files[IND]
        served = Detector.open(small_bundle_copy, batch=batch, threads=threads)
        backwards = [(found.source.id, found.result) for found in score_files(served, reversed(sources))]
        for scores in (
            dict(zip(evaluated.ids, evaluated.scores.tolist(), strict=True)),
            {name: result.score for name, result in backwards if result},
        ):
            assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=off, abs=off), engine


class Counting(OnnxRuntimeSession):
    """Measures, before every stage, how much memory the evidence that is held anywhere takes."""

    most = 0

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        self.most = max(self.most, held_images())
        return super().run(stage, feeds)


def held_images() -> int:
    """Denoised images in memory: the rows of all arrays of them that own theirs."""
    found = [thing.denoised for thing in gc.get_objects() if isinstance(thing, Evidence)]
    roots = {id(root): root for array in found if array is not None for root in [root_of(array)]}
    return sum(len(root) for root in roots.values())


def root_of(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return array if array.base is None else root_of(array.base)


def test_evidence_of_a_folder_is_not_kept_in_memory(
    request: pytest.FixtureRequest,
    small_bundle: Bundle,
    folder: Path,
    clothes: npt.NDArray[np.uint8],
    digits: npt.NDArray[np.uint8],
) -> None:
    """Denoised images of a whole folder would fill memory: at 256x256 in colour, ten megabytes each."""
    gc.freeze()  # what there is already, a million objects where torch is imported, is not looked through again
    request.addfinalizer(gc.unfreeze)
    session = Counting(SessionRequest(small_bundle, WITH_BANK, "fp32", BATCH, threads=1))
    detector, before = Detector(small_bundle, WITH_BANK, session), held_images()
    done = calibrate_files(detector, list_inputs([str(folder)]), 0.05, 0.95, "pac")
    done.detector.score(np.concatenate([clothes, digits]))
    # those of the turn before, of which the last image is still in use; of 96 + 80 images in all
    assert before < session.most <= before + 2 * detector.turn < before + 80


def test_without_calibration_an_error_says_what_to_do_and_the_plain_plan_works(
    small_bundle_copy: Path, clothes: npt.NDArray[np.uint8]
) -> None:
    detector = Detector.open(small_bundle_copy, batch=BATCH, threads=1)
    with pytest.raises(CalibrationError, match=r'`diffood calibrate .* --images DIR`.*plan="plain"') as caught:
        detector.score(clothes[:1])
    assert str(small_bundle_copy) in str(caught.value)
    assert "jump, reconstruction, logit_norm, energy" in str(caught.value)
    plain = Detector.open(small_bundle_copy, "plain", batch=BATCH, threads=1).score(clothes[:3])
    assert plain.witnesses.tolist() == plain.by_start.tolist() == plain.score[:, None].tolist()


def test_the_score_of_one_witness_is_the_witness(small_bundle: Bundle, clothes: npt.NDArray[np.uint8]) -> None:
    for name in ("reconstruction", "energy", "msp"):
        alone = Detector.load(small_bundle, FAST.changed({"witnesses": (name,)}), batch=BATCH, threads=1)
        found = alone.score(clothes[:3])
        assert found.score.tolist() == found.witnesses[:, 0].tolist()
        assert alone.fingerprint.fusion_sha256 is None
