"""The detector files of a bundle answer what Detector answers; one that is not the bundle's is refused."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from detector_files import assert_answers_as_detector, run_file
from outside_weights import move_outside, seal
from sealed import sealed

from diffood.calibration.calibrate import Calibrated, calibrate_files
from diffood.calibration.replacing import restore_calibration
from diffood.errors import BundleError, CalibrationError
from diffood.runtime.assembly.files import refresh_detectors, write_detectors
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import load_calibration, save_calibration
from diffood.runtime.bundle.detectors import load_detectors, read_calibrated_detector, read_detector
from diffood.runtime.bundle.external_data import find_external_data
from diffood.runtime.bundle.parity import ParityLimits, ParityRecord, add_record, flip_bound, list_problems
from diffood.runtime.bundle.writing import add_default_plan, write_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import CLASSIFIER, DEFAULT, PLAIN, Plan

Pixels = npt.NDArray[np.uint8]

# Three witnesses of three kinds, and stages; the cheapest of everything else.
CHEAP: dict[str, Any] = {"start_times": (120,), "stride": 120, "repeats": 2, "guidance": 0.0, "stages": (0, 1)}
FUSED = DEFAULT.changed(CHEAP)
PLANS: dict[str, Plan] = {
    "default": DEFAULT,
    "stages, several starts": DEFAULT.changed({**CHEAP, "start_times": (120, 240, 360), "repeats": 3}),
    "guided, improved Euler": DEFAULT.changed({"start_times": (120, 240), "stride": 120, "sampler": "pndm2"}),
    "reference, Runge-Kutta": DEFAULT.changed({**CHEAP, "schedule": "reference", "sampler": "pndm4", "stride": 40}),
    "features, neighbours": DEFAULT.changed(
        {**CHEAP, "start_times": (120, 240), "space": "features", "norm": "l2", "compare": "neighbour", "seed": 9}
    ),
    "sum of witnesses": FUSED.changed({"combine": "sum", "witnesses": ("jump", "msp", "max_logit")}),
    "a bank": FUSED.changed({"witnesses": ("margin", "inside", "reconstruction", "energy")}),
    "one witness": PLAIN.changed({"start_times": (240,), "stride": 120, "repeats": 2}),
    "the classifier alone": CLASSIFIER,
}

SLOW = ("guided, improved Euler", "reference, Runge-Kutta", "features, neighbours")  # stage graphs are tested elsewhere


@pytest.fixture(scope="module")
def images(clothes: Pixels, digits: Pixels) -> Pixels:
    """Real images, half of them OOD, uint8 [40, 1, 28, 28]."""
    return np.concatenate([clothes[:20], digits[:20]])[:, None]


@pytest.fixture
def bundle(small_bundle_copy: Path) -> Bundle:
    return open_bundle(small_bundle_copy)


def calibrate(
    bundle: Bundle, plan: Plan, folder: Path, *, precision: Precision = "fp32", per_class: bool = False
) -> Calibrated:
    """Calibrate as `diffood calibrate` does, and store it."""
    detector = Detector.load(bundle, plan, precision=precision, batch=16, threads=1)
    sources = list_inputs([str(folder)])
    if per_class:
        done = calibrate_files(detector, sources, 0.4, 0.9, "conformal", per_class=True)  # few images a class will do
    else:
        done = calibrate_files(detector, sources, 0.1, 0.9, "pac")
    done.save()
    return done


@pytest.mark.parametrize(
    "plan",
    [pytest.param(plan, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name, plan in PLANS.items()],
)
def test_the_file_answers_what_the_detector_answers(bundle: Bundle, plan: Plan, folder: Path, images: Pixels) -> None:
    calibrate(bundle, plan, folder)
    answer = assert_answers_as_detector(bundle.path, images)
    assert 0 < answer["is_ood"].sum() < len(images)
    assert len(set(answer["stage"].tolist())) > 1 or not plan.stages


@pytest.mark.slow  # halves graphs with torch; what decides which files give verdicts is tested without
def test_half_precision_answers_what_the_detector_answers_in_it(bundle: Bundle, folder: Path, images: Pixels) -> None:
    pytest.importorskip("torch", reason="needs the extra: export")
    from diffood.export.halve import halve_bundle

    halve_bundle(bundle.path, lambda _: None)
    halved = open_bundle(bundle.path)
    calibrate(halved, FUSED, folder, precision="fp16")
    assert "is_ood" in assert_answers_as_detector(halved.path, images)
    assert read_calibrated_detector(halved, "fp16").entry.file == "detector.fp16.onnx"
    with pytest.raises(CalibrationError, match="the calibration is not for fp32"):
        read_calibrated_detector(halved, "fp32")


@pytest.mark.slow  # quantises the trained models
def test_int8_answers_what_the_detector_answers_in_it(
    int8_bundle: Path, folder: Path, images: Pixels, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))
    calibrate(open_bundle(path), FUSED, folder, precision="int8")
    assert "is_ood" in assert_answers_as_detector(path, images)
    assert read_calibrated_detector(open_bundle(path), "int8").entry.file == "detector.int8.onnx"


def test_classes_with_thresholds_of_their_own_keep_them(bundle: Bundle, clothes_folder: Path, images: Pixels) -> None:
    done = calibrate(bundle, FUSED, clothes_folder, per_class=True)
    assert done.calibration.own_thresholds, "no class has enough images: nothing is tested"
    answer = assert_answers_as_detector(bundle.path, images)
    assert len(set(answer["threshold"].tolist())) > 1


def test_weights_in_a_file_of_their_own_stay_there(bundle: Bundle, folder: Path, images: Pixels) -> None:
    data = {role: move_outside(bundle.path, role) for role in ("classify", "step_plain")}
    bundle = open_bundle(bundle.path)
    calibrate(bundle, FUSED, folder)
    found = read_calibrated_detector(bundle, "fp32")
    assert set(found.entry.data) == set(data.values())
    assert {tensor.location for tensor in find_external_data(found.model)} == set(data.values())
    assert_answers_as_detector(bundle.path, images)


def damage(bundle: Bundle, graph: str, value: float) -> None:
    """Have a graph's largest weight be this value throughout, as the manifest has it too."""
    model = onnx.load(bundle.path / graph)
    weight = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(weight.dims), value, np.float32), weight.name))
    onnx.save(model, bundle.path / graph)
    seal(bundle.path, graph)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_an_image_whose_denoising_overflows_is_flagged_if_it_was_denoised(
    bundle: Bundle, folder: Path, images: Pixels, value: float
) -> None:
    """As Detector does, though clamping hides it; those that end before anything is denoised keep their score."""
    calibration = calibrate(bundle, FUSED, folder).calibration
    damage(bundle, "step_plain.onnx", value)
    broken = open_bundle(bundle.path)
    step = broken.sha256(broken.graph("step_plain"))
    fingerprint = calibration.fingerprint.model_copy(update={"step_sha256": step})
    save_calibration(broken, calibration.model_copy(update={"fingerprint": fingerprint}))
    write_detectors(broken)
    answer = assert_answers_as_detector(broken.path, images)
    denoised = answer["stage"] > 1
    assert 0 < denoised.sum() < len(images)
    np.testing.assert_array_equal(np.isnan(answer["score"]), denoised)
    assert answer["is_ood"][denoised].all()


def test_a_bundle_without_a_calibration_has_the_witnesses_of_its_default_plan(bundle: Bundle, images: Pixels) -> None:
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    record = write_detectors(bundle)
    assert {path.name for path in bundle.path.iterdir()} == {*before, "detector.onnx", "detector.json"}
    assert all((bundle.path / name).read_bytes() == data for name, data in before.items())
    assert (record.plan_name, record.plan, record.calibration_sha256) == ("default", bundle.plan(), None)
    assert not record.files[0].calibrated
    answer = run_file(bundle.path / "detector.onnx", images)
    assert answer.keys() >= {"sound", "logits", "features", "denoised", "heat_map", *bundle.plan().witnesses}
    assert answer["sound"].all()
    with pytest.raises(CalibrationError, match="gives no verdicts"):
        read_calibrated_detector(bundle, "fp32")
    write_bundle(bundle.path, lambda files: bundle.manifest.model_copy(update={"files": files}))
    assert open_bundle(bundle.path).manifest == bundle.manifest  # which lists none of them


def test_the_same_bundle_gives_the_same_bytes(bundle: Bundle, folder: Path) -> None:
    calibrate(bundle, FUSED, folder)
    first = (bundle.path / "detector.onnx").read_bytes()
    write_detectors(open_bundle(bundle.path))
    assert (bundle.path / "detector.onnx").read_bytes() == first


def edit_threshold(path: Path, calibrated: float) -> None:
    """Raise the threshold in a graph's tail, so that nothing is flagged any more."""
    model = onnx.load(path, load_external_data=False)
    edited = 0
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.data_location == onnx.TensorProto.DEFAULT:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 1 and (values == np.float32(calibrated)).all():
                tensor.CopyFrom(onnx.numpy_helper.from_array(values * 0 + np.float32(1e9), tensor.name))
                edited += 1
    assert edited == 1
    onnx.save(model, path)


def test_a_graph_whose_calibration_tail_was_edited_is_refused_by_its_hash(
    bundle: Bundle, folder: Path, images: Pixels
) -> None:
    calibration = calibrate(bundle, FUSED, folder).calibration
    edit_threshold(bundle.path / "detector.onnx", calibration.threshold)
    assert not run_file(bundle.path / "detector.onnx", images)["is_ood"].any()  # the attack works on who checks nothing
    found = hashlib.sha256((bundle.path / "detector.onnx").read_bytes()).hexdigest()
    with pytest.raises(BundleError, match=rf"detector\.onnx was changed after it was written: .* is {found[:12]}"):
        read_calibrated_detector(open_bundle(bundle.path), "fp32")
    write_detectors(bundle)
    assert read_calibrated_detector(bundle, "fp32").entry.calibrated


def recalibrate(bundle: Bundle, folder: Path) -> None:
    """Store another calibration, and no detector files: what a crash in between leaves."""
    calibration = load_calibration(bundle)
    save_calibration(bundle, calibration.model_copy(update={"set_aside": 1}))


def change_graph(bundle: Bundle, folder: Path) -> None:
    damage(bundle, "classify.onnx", 0.5)


def remove_calibration(bundle: Bundle, folder: Path) -> None:
    (bundle.path / "calibration.json").unlink()


def shorten(bundle: Bundle, folder: Path) -> None:
    path = bundle.path / "detector.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(bundle: Bundle, folder: Path) -> None:
    path = bundle.path / "detector.onnx"
    path.write_bytes(path.read_bytes() + b"\0")


def remove(bundle: Bundle, folder: Path) -> None:
    (bundle.path / "detector.onnx").unlink()


def link(bundle: Bundle, folder: Path) -> None:
    path = bundle.path / "detector.onnx"
    path.replace(folder / "elsewhere.onnx")
    path.symlink_to(folder / "elsewhere.onnx")


def remove_record(bundle: Bundle, folder: Path) -> None:
    (bundle.path / "detector.json").unlink()


def damage_record(bundle: Bundle, folder: Path) -> None:
    (bundle.path / "detector.json").write_text('{"format": 1}')


def point_record_outside(bundle: Bundle, folder: Path) -> None:
    path = bundle.path / "detector.json"
    record = json.loads(path.read_bytes())
    record["files"][0]["file"] = "../detector.onnx"
    path.write_bytes(sealed(record))


REFUSED: list[tuple[Callable[[Bundle, Path], None], str]] = [
    (recalibrate, "has the calibration [0-9a-f]{12}…, and calibration.json is [0-9a-f]{12}…"),
    (remove_calibration, "has the calibration [0-9a-f]{12}…, and there is no calibration.json"),
    (change_graph, "was assembled from other graphs than the bundle has"),
    (shorten, "was changed after it was written"),
    (lengthen, "detector.onnx has [0-9]+ bytes where at most"),
    (remove, "detector.onnx cannot be opened"),
    (link, "detector.onnx cannot be opened"),
    (remove_record, "has no detector.onnx"),
    (damage_record, "detector.json is invalid"),
    (point_record_outside, "detector.json is invalid"),
]


def test_a_file_that_is_not_the_bundles_is_refused(
    calibrated_small: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for change, message in REFUSED:
        with subtests.test(change.__name__):
            folder = tmp_path / change.__name__
            path = Path(shutil.copytree(calibrated_small, folder / "bundle"))
            change(open_bundle(path), folder)
            with pytest.raises(BundleError, match=message) as refused:
                read_detector(open_bundle(path), "fp32")
            assert "run `diffood export --bundle" in str(refused.value)


@pytest.fixture(scope="module")
def calibrated_small(small_bundle: Bundle, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated copy of the small bundle; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("calibrated") / "bundle"))
    calibrate(open_bundle(path), FUSED, folder)
    return path


def test_restoring_a_calibration_brings_its_file_back(bundle: Bundle, folder: Path) -> None:
    calibrate(bundle, FUSED, folder)
    first = (bundle.path / "detector.onnx").read_bytes()
    calibrate(bundle, FUSED.changed({"combine": "sum"}), folder)
    assert (bundle.path / "detector.onnx").read_bytes() != first
    restore_calibration(bundle.path)
    assert (bundle.path / "detector.onnx").read_bytes() == first
    assert read_calibrated_detector(open_bundle(bundle.path), "fp32").plan == FUSED


def test_a_new_default_plan_is_that_of_the_file_until_another_is_calibrated(bundle: Bundle, folder: Path) -> None:
    write_detectors(add_default_plan(bundle, "tuned", FUSED))
    record = load_detectors(bundle)
    assert record is not None
    assert (record.plan_name, record.plan) == ("tuned", FUSED)
    calibrate(bundle, CLASSIFIER, folder)
    write_detectors(add_default_plan(bundle, "tuned", PLAIN))
    assert read_calibrated_detector(open_bundle(bundle.path), "fp32").plan == CLASSIFIER  # what is calibrated serves


def in_two_precisions(bundle: Bundle) -> Bundle:
    """The bundle with FP16 graphs that are its FP32 ones under other names: what is tested here is their record."""
    entries = []
    for entry in bundle.manifest.graphs:
        file = entry.file.replace(".onnx", ".fp16.onnx")
        shutil.copy(bundle.path / entry.file, bundle.path / file)
        entries.append(entry.model_copy(update={"precision": "fp16", "file": file}))
    graphs = (*bundle.manifest.graphs, *entries)
    manifest = bundle.manifest
    write_bundle(bundle.path, lambda files: manifest.model_copy(update={"graphs": graphs, "files": files}))
    return open_bundle(bundle.path)


def judge_fp16(bundle: Bundle, flips: int) -> None:
    """Store what `diffood verify` concludes of the FP16 variant."""
    fingerprint, images, limits = load_calibration(bundle).fingerprint, 200, ParityLimits()
    judged = ParityRecord(
        reference=fingerprint,
        variant=fingerprint.model_copy(update={"precision": "fp16"}),
        calibration_sha256=load_calibration(bundle).sha256,
        limits=limits,
        images=images,
        flips=flips,
        flips_to_alarm=0,
        flip_bound=flip_bound(flips, images),
        p_value_shift=0,
        threshold_shift=0,
        sets={},
        images_per_second=1,
        reference_images_per_second=1,
        problems=list_problems(flips, images, 0, {}, limits),
    )
    add_record(bundle, judged)
    refresh_detectors(bundle)


def test_another_precision_gives_verdicts_once_it_is_verified(bundle: Bundle, folder: Path, images: Pixels) -> None:
    bundle = in_two_precisions(bundle)
    calibrate(bundle, FUSED, folder)

    def gives_verdicts(precision: Precision) -> bool:
        return "is_ood" in run_file(bundle.path / read_detector(bundle, precision).entry.file, images[:2])

    assert gives_verdicts("fp32")
    assert not gives_verdicts("fp16")
    with pytest.raises(CalibrationError, match=r"gives no verdicts: .* not for fp16\. Run `diffood verify"):
        read_calibrated_detector(bundle, "fp16")
    judge_fp16(bundle, flips=50)
    assert not gives_verdicts("fp16")
    judge_fp16(bundle, flips=0)
    assert gives_verdicts("fp16")
    assert read_calibrated_detector(bundle, "fp16").entry.calibrated
    judge_fp16(bundle, flips=50)
    assert not gives_verdicts("fp16")


def test_the_file_of_a_precision_that_the_bundle_lost_is_removed(bundle: Bundle) -> None:
    both = in_two_precisions(bundle)
    write_detectors(both)
    assert (bundle.path / "detector.fp16.onnx").exists()
    write_detectors(bundle)  # as the manifest was before
    assert not (bundle.path / "detector.fp16.onnx").exists()
