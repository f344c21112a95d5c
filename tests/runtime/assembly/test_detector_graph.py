"""The whole detector as one graph answers what fusion and decision answer in numpy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import log_ndtr
from stage_graphs import Found, run_plan, run_stage, witness_values

from diffood.calibration.calibrate import calibrate_files
from diffood.runtime.assembly.detector import CalibratedScale, build_detector
from diffood.runtime.assembly.recipe import Recipe, make_recipe
from diffood.runtime.assembly.tail import bend, fuse, minus_log_tail
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.calibration import Calibration, ClassThreshold, ClassThresholds
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method import fusion as in_numpy
from diffood.runtime.method.fusion import FittedWitness
from diffood.runtime.method.plan import CLASSIFIER, DEFAULT
from diffood.runtime.method.witnesses.registry import measurable
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder, Value
from diffood.zoo.images import unpack_set

Pixels = npt.NDArray[np.uint8]
STAGED = DEFAULT.changed({"start_times": (120, 240), "stride": 120, "repeats": 3, "guidance": 0.0, "stages": (0, 1)})


@pytest.fixture(scope="module")
def scale(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> CalibratedScale:
    """A calibration of a plan in stages, with thresholds of classes added by hand."""
    images = tmp_path_factory.mktemp("images")
    unpack_set("fashion-validation", images, 240)
    detector = Detector.load(small_bundle, STAGED, batch=16, threads=1)
    done = calibrate_files(detector, list_inputs([str(images)]), 0.1, 0.9, "pac")
    assert done.fitted is not None
    return CalibratedScale(done.calibration, done.fitted.fusion)


@pytest.fixture(scope="module")
def images(clothes: Pixels, digits: Pixels) -> Pixels:
    return np.concatenate([clothes, digits])[:, None]


@pytest.fixture(scope="module")
def recipe(small_bundle: Bundle) -> Recipe:
    return make_recipe(small_bundle, STAGED, "fp32")


@pytest.fixture(scope="module")
def found(recipe: Recipe, images: Pixels) -> Found:
    """What the stages give, all of them on every image."""
    return run_plan(recipe, images)


def score_in_numpy(found: Found, scale: CalibratedScale) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Score and stage [N] of the images, those of the first stage that ends each."""
    assert scale.fusion is not None
    record = scale.fusion.record
    score = record.score(witness_values(found, STAGED.witnesses, STAGED.repeats))
    stage = np.full(len(score), len(STAGED.stages) + 1)
    for number, rule in reversed(list(enumerate(record.stages))):
        names = measurable(STAGED.witnesses, rule.repeats)
        early = in_numpy.fuse(rule.witnesses, record.combine, witness_values(found, names, rule.repeats))
        ends = np.array([rule.ends(value) for value in early])
        score, stage = np.where(ends, early, score), np.where(ends, number + 1, stage)
    return score, stage


def by_class(calibration: Calibration, own_classes: tuple[int, int]) -> Calibration:
    """The same with thresholds of their own for two classes; the others share the threshold of all."""
    classes = [own_classes[index % 2] if index % 3 else 9 - own_classes[0] for index in range(calibration.n)]
    own = tuple(
        ClassThreshold(predicted=k, n=classes.count(k), allowed_above=calibration.n, threshold=threshold, bound=0.5)
        for k, threshold in zip(sorted(own_classes), calibration.scores[calibration.n // 2 :: 20], strict=False)
    )
    entry = ClassThresholds.model_construct(needed=1, overall_bound=0.1, thresholds=own, classes=classes)
    return calibration.model_copy(update={"per_class": entry})


@pytest.mark.parametrize("per_class", [False, True], ids=["one threshold", "per class"])
def test_a_calibrated_graph_answers_what_numpy_answers(
    recipe: Recipe, scale: CalibratedScale, images: Pixels, found: Found, *, per_class: bool
) -> None:
    predicted = found["logits"].argmax(axis=1)
    if per_class:
        first, second = (int(k) for k in np.unique(predicted)[:2])
        scale = replace(scale, calibration=by_class(scale.calibration, (first, second)))
    model = build_detector(recipe, scale)
    onnx.checker.check_model(model, full_check=True)
    answer = run_stage(model, image=images)
    score, stage = score_in_numpy(found, scale)
    decisions = DecisionRule.of(scale.calibration).decide(score, predicted)
    assert len(set(stage.tolist())) > 1, "all images end at one stage: nothing is chosen"
    assert 0 < decisions.is_ood.sum() < len(images)
    assert len(set(decisions.thresholds.tolist())) == (3 if per_class else 1)
    np.testing.assert_allclose(answer["score"], score, rtol=1e-5)
    np.testing.assert_array_equal(answer["stage"], stage)
    np.testing.assert_array_equal(answer["is_ood"], decisions.is_ood)
    np.testing.assert_allclose(answer["p_value"], decisions.p_values, rtol=1e-6)
    np.testing.assert_allclose(answer["threshold"], decisions.thresholds, rtol=1e-6)
    np.testing.assert_array_equal(answer["predicted_class"], predicted)
    probabilities = np.exp(found["logits"] - found["logits"].max(axis=1, keepdims=True))
    np.testing.assert_allclose(answer["confidence"], 1 / probabilities.sum(axis=1), rtol=1e-5)


def test_pictures_are_the_denoised_image_and_where_it_changed(
    recipe: Recipe, scale: CalibratedScale, images: Pixels, found: Found
) -> None:
    answer = run_stage(build_detector(recipe, scale), image=images)
    np.testing.assert_allclose(answer["denoised"], found["denoised"], rtol=0, atol=2e-5)
    assert answer["heat_map"].shape == (len(images), 28, 28)
    whole = np.sqrt((answer["heat_map"].astype(np.float64) ** 2).mean(axis=(1, 2)))
    np.testing.assert_allclose(whole, witness_values(found, ("reconstruction",), 3)[:, 0], rtol=1e-4)


def test_without_a_calibration_the_witnesses_are_the_answer(recipe: Recipe, images: Pixels, found: Found) -> None:
    model = build_detector(recipe, None)
    onnx.checker.check_model(model, full_check=True)
    answer = run_stage(model, image=images)
    assert not answer.keys() & {"score", "p_value", "threshold", "is_ood"}
    for name in STAGED.witnesses:
        expected = witness_values(found, (name,), STAGED.repeats)[:, 0]
        np.testing.assert_allclose(answer[name], expected, rtol=1e-5, err_msg=name)


def test_images_the_models_cannot_bear_are_flagged(recipe: Recipe, scale: CalibratedScale, images: Pixels) -> None:
    """A classifier that gives NaN for what it is given: no score, the smallest p-value, an alarm."""
    damaged = onnx.load_from_string(build_detector(recipe, scale))
    weights = next(t for t in damaged.graph.initializer if t.name.startswith("classify/") and len(t.dims) > 1)
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(weights.dims), np.nan, np.float32), weights.name))
    answer = run_stage(damaged.SerializeToString(), image=images[:8])
    assert np.isnan(answer["score"]).all()
    assert answer["is_ood"].all()
    np.testing.assert_allclose(answer["p_value"], 1 / (scale.calibration.n + 1), rtol=1e-6)


def test_what_a_bank_holds_counts_where_a_witness_needs_one(
    small_bundle: Bundle, images: Pixels, tmp_path: Path
) -> None:
    plan = STAGED.changed(
        {"witnesses": ("margin", "inside", "energy"), "stages": (), "repeats": 1, "start_times": (120,)}
    )
    unpack_set("fashion-validation", tmp_path / "images", 200)
    detector = Detector.load(small_bundle, plan, batch=16, threads=1)
    done = calibrate_files(detector, list_inputs([str(tmp_path / "images")]), 0.1, 0.9, "pac")
    assert done.fitted is not None
    recipe = make_recipe(small_bundle, plan, "fp32")
    answer = run_stage(build_detector(recipe, CalibratedScale(done.calibration, done.fitted.fusion)), image=images)
    scored = detector.with_fusion(done.fitted.fusion).score(images).score  # no witness looks at the noise
    np.testing.assert_allclose(answer["score"], scored, rtol=1e-4)


def test_a_plan_without_a_unet_answers_by_its_classifier_alone(
    small_bundle: Bundle, images: Pixels, tmp_path: Path
) -> None:
    unpack_set("fashion-validation", tmp_path / "images", 200)
    detector = Detector.load(small_bundle, CLASSIFIER, batch=16, threads=1)
    done = calibrate_files(detector, list_inputs([str(tmp_path / "images")]), 0.1, 0.9, "pac")
    assert done.fitted is not None
    recipe = make_recipe(small_bundle, CLASSIFIER, "fp32")
    model = build_detector(recipe, CalibratedScale(done.calibration, done.fitted.fusion))
    held = {
        tensor.name.split("/")[0] for tensor in onnx.load_from_string(model).graph.initializer if "/" in tensor.name
    }
    assert held == {"classify"}
    assert len(model) < 200_000, "it holds a pool of noise"
    answer = run_stage(model, image=images)
    assert not answer.keys() & {"denoised", "heat_map"}
    expected = detector.with_fusion(done.fitted.fusion).score(images).score
    np.testing.assert_allclose(answer["score"], expected, rtol=1e-4)


def evaluate(values: npt.NDArray[np.float32], write: object) -> npt.NDArray[np.float32]:
    builder = GraphBuilder()
    x = builder.input("x", messages.FLOAT, ("batch",))
    assert callable(write)
    builder.output("y", write(x), messages.FLOAT, ("batch",))
    session = onnxruntime.InferenceSession(builder.serialise({"": 21}), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": values})
    return np.asarray(found)


def test_the_normal_tail_is_right_far_beyond_what_float32_can_subtract() -> None:
    z = np.linspace(-12, 40, 100_001).astype(np.float32)
    expected = -log_ndtr(-z.astype(np.float64))
    np.testing.assert_array_less(np.abs(evaluate(z, minus_log_tail) - expected) / np.maximum(1, expected), 1e-6)


def test_the_normal_tail_grows_without_end() -> None:
    ends = evaluate(np.array([-np.inf, -1e30, 1e18, np.nan], np.float32), minus_log_tail)
    assert ends[:2].tolist() == [0, 0]
    assert ends[2] > 1e35
    assert np.isnan(ends[3])


@given(power=st.floats(0, 2), scale=st.floats(0.01, 100))
@example(power=0.001, scale=0.5)
@example(power=2.0, scale=0.01)
@example(power=1e-9, scale=100.0)
def test_the_transformation_is_that_of_numpy(power: float, scale: float) -> None:
    values = (np.linspace(-4, 4, 65) * scale).astype(np.float32)
    expected = in_numpy.bend(values.astype(np.float64), power)
    found = evaluate(values, lambda value: bend(value, power))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_a_witness_that_is_not_finite_makes_the_score_nan() -> None:
    fitted = [FittedWitness(name=name, center=0, scale=1, weight=0.5, power=0.5) for name in ("energy", "msp")]

    def write(value: Value) -> Value:
        return fuse(fitted, "tail", {"energy": value, "msp": value * 0.0 + 1.0})

    values = np.array([np.nan, -np.inf, np.inf, 1e30, 0], np.float32)
    assert np.isfinite(evaluate(values, write)).tolist() == [False, False, False, True, True]


def test_a_snapshot_of_the_unet_counts_once_it_is_taken(small_bundle: Bundle, images: Pixels, tmp_path: Path) -> None:
    """After stage 0, which passes no image, one evaluation; of two repeats the first is looked into."""
    changes = {"start_times": (120,), "stride": 120, "repeats": 2, "guidance": 0.0, "stages": (0,)}
    plan = DEFAULT.changed({**changes, "witnesses": ("margin", "inside", "snapshot")})
    unpack_set("fashion-validation", tmp_path / "images", 200)
    detector = Detector.load(small_bundle, plan, batch=16, threads=1)
    done = calibrate_files(detector, list_inputs([str(tmp_path / "images")]), 0.1, 0.9, "pac")
    assert done.fitted is not None
    recipe = make_recipe(small_bundle, plan, "fp32")
    answer = run_stage(build_detector(recipe, CalibratedScale(done.calibration, done.fitted.fusion)), image=images)
    fused = detector.with_fusion(done.fitted.fusion)
    found = fused.score(images)
    np.testing.assert_allclose(answer["score"], found.score, rtol=1e-4)
    one = next(evidence for _, evidence in fused.observe(enumerate(images)))
    assert one.inner.keys() == {"inside", "snapshot"}
    assert len(one.inner["snapshot"]) == recipe.width("snapshot") == 2 * 6
    once = Detector.load(small_bundle, plan.changed({"repeats": 1}), batch=16, threads=1)
    again = next(evidence for _, evidence in once.observe(enumerate(images)))
    np.testing.assert_allclose(again.inner["snapshot"], one.inner["snapshot"], rtol=1e-4, atol=1e-6)
