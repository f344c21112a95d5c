"""verify on a fused calibration: a fused FP16 score repeats at any place of a batch, and passes the gate."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fast_plans import WITH_BANK
from halved_graphs import add_halved_graphs
from rounded_graphs import add_rounded_graphs

from diffood import zoo
from diffood.calibration.calibrate import calibrate_files
from diffood.calibration.verify import Verification, VerifyRequest, verify_bundle
from diffood.errors import BundleError, CalibrationError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.detectors import read_calibrated_detector
from diffood.runtime.bundle.parity import ParityLimits
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.zoo.images import unpack_set

BATCH = 16
LENIENT = ParityLimits(flips=0.02, auroc_shift=0.01)


@pytest.fixture(scope="module", params=["small", pytest.param("zoo", marks=pytest.mark.slow)])
def calibrated(request: pytest.FixtureRequest, small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a bundle with graphs that stand for FP16, calibrated in FP32 with every default witness and a bank.

    Those of the small bundle have rounded weights; those of the zoo were exported in FP16, which takes a while.
    """
    root = tmp_path_factory.mktemp("fused")
    exported = request.param == "zoo"
    path = Path(shutil.copytree(zoo.BUNDLE if exported else small_bundle.path, root / "bundle"))
    if exported:
        add_halved_graphs(path, ("classify", "step_plain"))
    else:
        add_rounded_graphs(path, "fp16")
    unpack_set("fashion-validation", root / "images", 150)
    detector = Detector.load(open_bundle(path), WITH_BANK, batch=BATCH, threads=1)
    calibrate_files(detector, list_inputs([str(root / "images")]), 0.05, 0.95, "pac").save()
    return path


@pytest.fixture
def bundle(calibrated: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may verify."""
    return Path(shutil.copytree(calibrated, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """A hundred clothes and forty digits."""
    root = tmp_path_factory.mktemp("sets")
    unpack_set("fashion-test", root / "ind", 100)
    unpack_set("digits", root / "digits", 40)
    return {name: (str(root / name),) for name in ("ind", "digits")}


def verify(path: Path, sets: dict[str, tuple[str, ...]], limits: ParityLimits = LENIENT) -> Verification:
    request = VerifyRequest(
        bundle=path,
        images=sets["ind"],
        ood={"digits": sets["digits"]},
        backend="onnxruntime-cpu",
        precisions=("fp32", "fp16"),
        limits=limits,
        batch=BATCH,
        threads=1,
    )
    return verify_bundle(request)


def test_a_fused_score_in_fp16_keeps_the_contract_and_passes_the_gate(
    bundle: Path, sets: dict[str, tuple[str, ...]]
) -> None:
    with pytest.raises(CalibrationError, match="precision: fp32 there, fp16 here"):
        Detector.open(bundle, precision="fp16", batch=BATCH, threads=1).calibration()
    with pytest.raises(CalibrationError, match=r"detector\.fp16\.onnx gives no verdicts"):
        read_calibrated_detector(open_bundle(bundle), "fp16")
    done = verify(bundle, sets)
    assert read_calibrated_detector(open_bundle(bundle), "fp16").entry.calibrated
    assert [(check.what, check.outcome) for check in done.checks] == [
        ("hashes", "ok"),
        *[("golden", "ok"), ("contract", "ok")] * 2,
        ("parity", "ok"),
    ], done.checks
    (record,) = done.records
    assert record.images == 100
    assert record.reference == load_calibration(open_bundle(bundle)).fingerprint
    assert record.reference.fusion_sha256 is not None
    assert record.variant.fusion_sha256 == record.reference.fusion_sha256
    assert record.threshold_shift != 0  # the two are not the same engine

    half = Detector.open(bundle, precision="fp16", batch=BATCH, threads=1)
    assert half.calibration() == load_calibration(open_bundle(bundle))  # let through
    path = list_inputs(sets["digits"])[0].place
    full = Detector.open(bundle, precision="fp32", batch=BATCH, threads=1)
    a, b = half.predict([path]), full.predict([path])
    assert a.score != b.score
    assert a.score == pytest.approx(b.score, rel=0.05)
    assert np.array_equal(a.is_ood, b.is_ood)


def test_a_judgement_ends_with_the_fusion_it_was_made_with(
    bundle: Path, sets: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    assert verify(bundle, sets).passed
    unpack_set("fashion-validation", tmp_path / "images", 120)  # thirty fewer: another fusion
    fresh = Detector.load(open_bundle(bundle), WITH_BANK, batch=BATCH, threads=1)
    calibrate_files(fresh, list_inputs([str(tmp_path / "images")]), 0.05, 0.95, "pac").save()
    with pytest.raises(CalibrationError, match="diffood verify"):
        Detector.open(bundle, precision="fp16", batch=BATCH, threads=1).calibration()


def test_a_bundle_without_its_bank_is_not_verified(bundle: Path, sets: dict[str, tuple[str, ...]]) -> None:
    (bank,) = (bundle / "calibrations").glob("bank.*.npz")
    bank.unlink()
    with pytest.raises(BundleError, match="calibrate again"):
        verify(bundle, sets)
