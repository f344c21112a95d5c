"""Laws of the verdict: p-values by their formula, thresholds, and the match of a calibration with what runs."""

import hashlib
from pathlib import Path

import made_up
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import fingerprint_of
from pydantic import ValidationError

from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import (
    Calibration,
    ClassThreshold,
    ClassThresholds,
    Fingerprint,
    list_kept,
    load_calibration,
    save_calibration,
)
from diffood.runtime.bundle.fusion import FusionRecord
from diffood.runtime.decision import DecisionRule
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.method.fusion import FittedWitness
from diffood.runtime.method.plan import Plan

PLAN = Plan(start_times=(100, 200), stride=50, repeats=2, guidance=2.0)
FINGERPRINT = fingerprint_of(PLAN)
INFINITE = float("inf")
NO_CLASS = np.full(2, -1)
score_values = st.floats(0, 100, allow_nan=False)


def calibration_of(scores: list[float], threshold: float) -> Calibration:
    return made_up.calibration_of(sorted(scores), threshold, fingerprint=FINGERPRINT)


def calibration_by_class(images: list[tuple[float, int]], needed: int) -> Calibration:
    """Of scores with their predicted classes; one in five may lie above, of all images and of each class."""
    images = sorted(images)
    scores, allowed = [score for score, _ in images], len(images) // 5
    pools = {k: [score for score, j in images if j == k] for k in sorted({j for _, j in images})}
    own = tuple(
        ClassThreshold(
            predicted=k, threshold=pool[-1 - len(pool) // 5], n=len(pool), allowed_above=len(pool) // 5, bound=0.5
        )
        for k, pool in pools.items()
        if len(pool) >= needed
    )
    return Calibration(
        **calibration_of(scores, scores[-1 - allowed]).model_dump(exclude={"method", "allowed_above", "per_class"}),
        method="conformal",
        allowed_above=allowed,
        per_class=ClassThresholds(needed=needed, overall_bound=0.9, thresholds=own, classes=[k for _, k in images]),
    )


def test_p_values_by_hand(subtests: pytest.Subtests) -> None:
    for score, at_least, flagged in [
        (0.0, 4, False),
        (1.0, 4, False),  # a tie counts as at least as large
        (1.5, 3, False),
        (2.0, 3, False),
        (2.5, 1, True),
        (3.0, 1, True),
        (3.5, 0, True),
        (INFINITE, 0, True),
        (float("nan"), 0, True),
        (-INFINITE, 0, True),  # as an energy with an infinite logit
    ]:
        with subtests.test(score=score):
            decisions = DecisionRule.of(calibration_of([1.0, 2.0, 2.0, 3.0], 2.0)).decide(
                np.array([score]), NO_CLASS[:1]
            )
            assert decisions.p_values.tolist() == [(1 + at_least) / 5]
            assert decisions.is_ood.tolist() == [flagged]
            assert decisions.thresholds.tolist() == [2.0]


def test_a_score_on_the_threshold_passes_and_the_next_number_does_not() -> None:
    scores = np.array([2.0, np.nextafter(2.0, 3.0)])
    assert DecisionRule.of(calibration_of([1.0, 2.0, 3.0], 2.0)).decide(scores, NO_CLASS[:2]).is_ood.tolist() == [
        False,
        True,
    ]


def test_no_scores_give_no_decisions() -> None:
    decisions = DecisionRule.of(calibration_of([1.0], 1.0)).decide(np.empty(0), NO_CLASS[:0])
    assert decisions.p_values.shape == decisions.is_ood.shape == decisions.thresholds.shape == (0,)


@given(
    st.lists(score_values, min_size=1, max_size=40),
    score_values,
    st.lists(st.one_of(score_values, st.sampled_from([INFINITE, -INFINITE, float("nan")])), max_size=30),
)
def test_laws_of_p_values_and_verdicts(scores: list[float], threshold: float, asked: list[float]) -> None:
    calibration = calibration_of(scores, threshold)
    asked.extend(scores)
    decisions = DecisionRule.of(calibration).decide(np.array(asked), np.zeros(len(asked), np.int64))
    ranked = np.where(np.isfinite(asked), asked, INFINITE)
    expected = [(1 + sum(score >= value for score in scores)) / (len(scores) + 1) for value in ranked]
    assert decisions.p_values.tolist() == expected
    assert np.all((decisions.p_values > 0) & (decisions.p_values <= 1))
    order = np.argsort(ranked, kind="stable")
    assert np.all(np.diff(decisions.p_values[order]) <= 0)
    assert decisions.is_ood.tolist() == [value > threshold for value in ranked]
    assert np.all(np.diff(decisions.is_ood[order].astype(int)) >= 0)


@given(st.data())
def test_laws_of_verdicts_by_class(data: st.DataObject) -> None:
    images = data.draw(st.lists(st.tuples(score_values, st.integers(0, 3)), min_size=1, max_size=40))
    needed = data.draw(st.integers(1, 12))
    calibration = calibration_by_class(images, needed)
    own = {k for k in range(4) if sum(j == k for _, j in images) >= needed}
    assert calibration.own_thresholds.keys() == own
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
    asked = images + data.draw(st.lists(st.tuples(score_values, st.integers(-1, 5)), max_size=30))
    asked += [(float("nan"), 0), (-INFINITE, 1)]
    rule = DecisionRule.of(calibration)
    decisions = rule.decide(np.array([s for s, _ in asked]), np.array([k for _, k in asked]))
    one_by_one = [rule.decide(np.array([s]), np.array([k])) for s, k in asked]
    assert [one.p_values[0] for one in one_by_one] == decisions.p_values.tolist()
    assert [one.thresholds[0] for one in one_by_one] == decisions.thresholds.tolist()
    found = zip(asked, decisions.p_values, decisions.is_ood, decisions.thresholds, strict=True)
    for (score, k), p_value, is_ood, threshold in found:
        pool = [s for s, j in images if j == k] if k in own else [s for s, _ in images]
        ranked = score if np.isfinite(score) else INFINITE
        assert p_value == (1 + sum(s >= ranked for s in pool)) / (len(pool) + 1)
        assert threshold == calibration.own_thresholds.get(k, calibration.threshold)
        assert is_ood == (ranked > threshold)
        # the verdict can be read off the p-value: no more of the same images reach the score than lie above
        assert is_ood == (p_value <= (1 + sum(s > threshold for s in pool)) / (len(pool) + 1))


def test_a_summary_leaves_out_what_has_an_entry_an_image() -> None:
    summary = calibration_by_class([(1.0, 0), (2.0, 0), (3.0, 1)], 2).summary()
    assert "scores" not in summary
    assert summary["per_class"].keys() == {"needed", "overall_bound", "thresholds"}
    assert calibration_of([1.0], 1.0).summary()["per_class"] is None


def test_thresholds_by_class_that_contradict_the_scores_are_refused(subtests: pytest.Subtests) -> None:
    sound = calibration_by_class([(1.0, 0), (2.0, 0), (3.0, 1), (4.0, 2**31 - 1)], 2)
    assert sound.per_class is not None
    (own,) = sound.per_class.thresholds
    fields = sound.model_dump()
    for change, message in [
        ({"thresholds": [own.model_copy(update={"n": 1}).model_dump()]}, "class 0 has n 1 but 2 scores"),
        ({"thresholds": [own.model_copy(update={"n": 3}).model_dump()]}, "class 0 has n 3 but 2 scores"),
        ({"thresholds": [own.model_copy(update={"threshold": 0.5}).model_dump()]}, "more than 0 scores of class 0"),
        ({"thresholds": [own.model_dump()] * 2}, "must ascend without repeating"),
        ({"thresholds": []}, "class 0 has 2 images where 2 are needed"),
        ({"classes": [0, 0, 1]}, "n is 4 but 3 predicted classes are stored"),
        ({"classes": [0, 0, 1, 1, 3], "thresholds": []}, "class 0 has 2 images"),
        ({"classes": [0, 0, 1, 2, 3]}, "n is 4 but 5 predicted classes are stored"),
        ({"classes": [0, 0, 1, -1]}, "greater than or equal to 0"),
        ({"classes": [0, 0, 1, 2**31]}, "less than 2147483648"),
        ({"needed": 0}, "greater than or equal to 1"),
        ({"overall_bound": 0.0}, "greater than 0"),
        ({"overall_bound": 2.0}, "less than 2"),
        ({"thresholds": [own.model_dump() | {"bound": 0.0}]}, "greater than 0"),
        ({"thresholds": [own.model_dump() | {"bound": 1.0}]}, "less than 1"),
    ]:
        with subtests.test(change=change), pytest.raises(ValidationError, match=message):
            Calibration.model_validate(fields | {"per_class": fields["per_class"] | change})


def test_a_fusion_goes_with_a_plan_that_needs_one(subtests: pytest.Subtests) -> None:
    fused = PLAN.changed({"witnesses": ("jump", "energy")})
    parts = (
        FittedWitness(name="jump", center=0, scale=1, weight=0.5),
        FittedWitness(name="energy", center=0, scale=1, weight=0.5),
    )
    fusion = FusionRecord(combine="tail", witnesses=parts, n=20)
    cases = {
        "need a fusion, and there is none": (fused, None),
        "take no fusion, and there is one": (PLAN, fusion),
        "The fusion combines jump, energy by tail, the plan": (fused.changed({"combine": "sum"}), fusion),
    }
    for message, (plan, record) in cases.items():
        fingerprint = fingerprint_of(plan, fusion_sha256=record.sha256 if record else None)
        with subtests.test(message=message), pytest.raises(ValidationError, match=message):
            made_up.calibration_of([1.0], 1.0, fingerprint=fingerprint, fusion=record)
    with pytest.raises(ValidationError, match="the fusion is not the one of the fingerprint"):
        made_up.calibration_of([1.0], 1.0, fingerprint=fingerprint_of(fused, fusion_sha256="0" * 64), fusion=fusion)
    made_up.calibration_of([1.0], 1.0, fingerprint=fingerprint_of(fused, fusion_sha256=fusion.sha256), fusion=fusion)


def test_a_difference_is_named_with_both_values(subtests: pytest.Subtests) -> None:
    for change, expected in [
        ({"precision": "fp16"}, "precision: fp32 there, fp16 here"),
        ({"backend": "tensorrt"}, "backend: onnxruntime-cpu there, tensorrt here"),
        ({"encode_sha256": "d" * 64}, f"encode_sha256: None there, {'d' * 16} here"),
        ({"decode_sha256": "d" * 64}, f"decode_sha256: None there, {'d' * 16} here"),
        ({"engine_sha256": "d" * 64}, f"engine_sha256: None there, {'d' * 16} here"),
        ({"noise_rule": "another"}, "noise_rule: "),
        ({"image": ImageShape(3, 28, 28)}, "image.channels: 1 there, 3 here"),
        ({"classify_sha256": "d" * 64}, f"classify_sha256: {'a' * 16} there, {'d' * 16} here"),
        ({"step_sha256": "d" * 64}, f"step_sha256: {'b' * 16} there, {'d' * 16} here"),
        ({"plan": PLAN.changed({"repeats": 4})}, "plan.repeats: 2 there, 4 here"),
        ({"plan": PLAN.changed({"start_times": (100,)})}, "plan.start_times: [100, 200] there, [100] here"),
        ({"plan": PLAN.changed({"seed": 1})}, "plan.seed: 0 there, 1 here"),
    ]:
        with subtests.test(change=change, expected=expected):
            running = FINGERPRINT.model_copy(update=change)
            difference = FINGERPRINT.difference(running)
            assert difference.startswith(expected)
            assert ";" not in difference
            assert FINGERPRINT.short != running.short


def test_several_differences_are_all_named() -> None:
    running = FINGERPRINT.model_copy(update={"precision": "fp16", "plan": PLAN.changed({"norm": "l2", "stride": 20})})
    assert FINGERPRINT.difference(running) == (
        'precision: fp32 there, fp16 here; plan.stride: 50 there, 20 here; plan.norm: "l1" there, "l2" here'
    )


def test_an_equal_fingerprint_is_accepted() -> None:
    again = Fingerprint.model_validate_json(FINGERPRINT.model_dump_json())
    assert again == FINGERPRINT
    assert again.short == FINGERPRINT.short
    assert not FINGERPRINT.difference(again)


def test_a_saved_calibration_loads_as_it_was(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    scores = [float(value) for value in np.random.default_rng(0).random(100)]
    for threshold in (sorted(scores)[90], sorted(scores)[50]):  # replaces the first by the second
        calibration = calibration_of(scores, float(threshold))
        assert save_calibration(bundle, calibration) == small_bundle_copy / "calibration.json"
        assert load_calibration(open_bundle(small_bundle_copy)) == calibration
    assert not list(small_bundle_copy.glob(".*.tmp"))


def test_a_replaced_calibration_is_kept_once_by_its_hash(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    first, second = calibration_of([1.0, 2.0], 1.0), calibration_of([1.0, 2.0], 2.0)
    save_calibration(bundle, first)
    data = (small_bundle_copy / "calibration.json").read_bytes()
    save_calibration(bundle, first)  # the same again replaces nothing
    assert list_kept(open_bundle(small_bundle_copy)) == {}
    save_calibration(bundle, second)
    name = f"{hashlib.sha256(data).hexdigest()[:12]}.json"
    assert list_kept(open_bundle(small_bundle_copy)) == {name: first}
    assert (small_bundle_copy / "calibrations" / name).read_bytes() == data
    for calibration in (first, second):  # there and back again
        save_calibration(bundle, calibration)
    assert list_kept(open_bundle(small_bundle_copy)) == {
        name: first
    }  # not the one in force, though it was replaced before
    assert load_calibration(open_bundle(small_bundle_copy)) == second


def test_a_damaged_calibration_is_replaced_and_not_kept(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    (small_bundle_copy / "calibration.json").write_text("{}")
    save_calibration(bundle, calibration_of([1.0], 1.0))
    assert list_kept(open_bundle(small_bundle_copy)) == {}
