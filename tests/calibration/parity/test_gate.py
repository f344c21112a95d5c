"""The decision-parity gate: what it counts and refuses; a judgement is valid for one pair and one threshold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import calibration_of, fingerprint_of
from refusals import assert_refused

from diffood.calibration.parity.gate import Run, judge
from diffood.errors import BundleError, CalibrationError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import ClassThreshold, ClassThresholds, Fingerprint, save_calibration
from diffood.runtime.bundle.parity import ParityLimits, add_record, load_parity, require_calibrated
from diffood.runtime.decision import DecisionRule

Scores = npt.NDArray[np.float64]

REFERENCE = fingerprint_of()
VARIANT = REFERENCE.model_copy(update={"precision": "int8", "classify_sha256": "d" * 64, "step_sha256": "e" * 64})
CALIBRATION = calibration_of(
    [round(0.01 * index, 2) for index in range(100)], 0.89, alpha=0.1, allowed_above=10, fingerprint=REFERENCE
)
GENERATOR = np.random.default_rng(0)
KNOWN: Scores = GENERATOR.random(400) * 0.95
STRANGE: Scores = GENERATOR.random(300) + 0.5


def runs(known: Scores, strange: Scores) -> tuple[Run, Run]:
    """The reference on KNOWN and STRANGE, and a variant that gave other scores."""
    return run_of(REFERENCE, {"ind": KNOWN, "strange": STRANGE}, 10.0), run_of(
        VARIANT, {"ind": known, "strange": strange}, 30.0
    )


def run_of(fingerprint: Fingerprint, scores: dict[str, Scores], speed: float) -> Run:
    """A run that predicts class 0 for every image."""
    return Run(fingerprint, scores, {name: np.zeros(len(values), np.int64) for name, values in scores.items()}, speed)


def is_ood(scores: Scores) -> npt.NDArray[np.bool_]:
    return DecisionRule.of(CALIBRATION).decide(scores, np.zeros(len(scores), np.int64)).is_ood


def test_equal_scores_pass_without_a_shift() -> None:
    record = judge(*runs(KNOWN, STRANGE), CALIBRATION, ParityLimits())
    assert record.passed
    assert (record.images, record.flips, record.p_value_shift, record.threshold_shift) == (400, 0, 0, 0)
    assert 0 < record.flip_bound < 0.01  # no flip of 400 is not "never"
    found = record.sets["strange"]
    assert (found.images, found.flips, found.auroc_reference) == (300, 0, found.auroc_variant)
    assert (record.images_per_second, record.reference_images_per_second) == (30, 10)


@given(st.lists(st.integers(0, 399), unique=True, max_size=30))
def test_flips_are_the_verdicts_that_differ(moved: list[int]) -> None:
    other = KNOWN.copy()
    other[moved] = 1.78 - other[moved]  # mirrored at the threshold
    record = judge(*runs(other, STRANGE), CALIBRATION, ParityLimits(auroc_shift=1.0))
    before, after = is_ood(KNOWN), is_ood(other)
    assert record.flips == int((before != after).sum())
    assert record.flips_to_alarm == int((~before & after).sum())
    assert record.passed == (record.flips <= 2)  # 0.5 % of 400
    assert bool(record.problems) == (not record.passed)


def test_a_shifted_auroc_is_refused_even_without_a_flip() -> None:
    record = judge(*runs(KNOWN, STRANGE - 0.2), CALIBRATION, ParityLimits())
    assert record.flips == 0
    assert not record.passed
    assert "AUROC on strange moves by -" in record.problems[0]
    assert judge(*runs(KNOWN, STRANGE - 0.2), CALIBRATION, ParityLimits(auroc_shift=1.0)).passed


def test_scores_that_are_not_numbers_count_as_flagged_and_are_refused() -> None:
    record = judge(*runs(np.full(400, np.nan), STRANGE), CALIBRATION, ParityLimits(flips=1.0, auroc_shift=1.0))
    assert record.flips_to_alarm == int((~is_ood(KNOWN)).sum())
    assert record.problems == ("400 of 400 scores are not finite",)


def test_a_variant_is_judged_at_the_thresholds_of_the_classes_it_predicts() -> None:
    strict = ClassThreshold(predicted=1, threshold=0.05, n=50, allowed_above=45, bound=0.99)
    per_class = ClassThresholds(
        needed=50, overall_bound=0.99, thresholds=(strict,), classes=[1] * 50 + [2] * 30 + [0] * 20
    )
    calibration = CALIBRATION.model_copy(update={"method": "conformal", "per_class": per_class})
    reference, variant = runs(KNOWN, STRANGE)
    assert judge(reference, variant, calibration, ParityLimits()).flips == 0
    variant = replace(variant, predicted=dict(variant.predicted) | {"ind": np.ones(400, np.int64)})
    record = judge(reference, variant, calibration, ParityLimits())
    assert record.flips == record.flips_to_alarm == int(((KNOWN > 0.05) & (KNOWN <= 0.89)).sum())
    assert not record.passed


def test_too_few_images_to_see_the_limit_are_refused() -> None:
    for flips, needed in ((0.005, 200), (0.001, 1000), (0.5, 2), (0.0, 1)):
        assert ParityLimits(flips=flips).fewest_images == needed
        few = KNOWN[: needed - 1]
        if len(few):
            reference, variant = run_of(REFERENCE, {"ind": few}, 1.0), run_of(VARIANT, {"ind": few}, 1.0)
            with pytest.raises(CalibrationError, match=f"at least {needed}"):
                judge(reference, variant, CALIBRATION, ParityLimits(flips=flips))


def test_only_a_passed_judgement_of_this_pair_lets_the_variant_run(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    save_calibration(bundle, CALIBRATION)
    require_calibrated(bundle, CALIBRATION, REFERENCE)
    with pytest.raises(CalibrationError, match=r"fp32 on onnxruntime-cpu.*int8 on onnxruntime-cpu.*diffood verify"):
        require_calibrated(bundle, CALIBRATION, VARIANT)

    add_record(bundle, judge(*runs(KNOWN, STRANGE - 0.2), CALIBRATION, ParityLimits()))
    with pytest.raises(CalibrationError, match="The parity gate refused it: AUROC on strange"):
        require_calibrated(bundle, CALIBRATION, VARIANT)

    add_record(bundle, judge(*runs(KNOWN, STRANGE), CALIBRATION, ParityLimits()))
    assert len(load_parity(open_bundle(small_bundle_copy)).records) == 1  # the newest judgement of a pair stands
    require_calibrated(bundle, CALIBRATION, VARIANT)
    with pytest.raises(CalibrationError, match="engine_sha256"):
        require_calibrated(bundle, CALIBRATION, VARIANT.model_copy(update={"engine_sha256": "1" * 64}))


def test_a_judgement_ends_with_the_threshold_it_was_made_at(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    save_calibration(bundle, CALIBRATION)
    add_record(bundle, judge(*runs(KNOWN, STRANGE), CALIBRATION, ParityLimits()))
    stricter = CALIBRATION.model_copy(update={"threshold": 0.95})
    save_calibration(bundle, stricter)
    with pytest.raises(CalibrationError, match="Not calibrated for what is running"):
        require_calibrated(bundle, stricter, VARIANT)


def test_another_plan_is_always_refused(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    save_calibration(bundle, CALIBRATION)
    other = REFERENCE.model_copy(update={"plan": REFERENCE.plan.changed({"repeats": 2})})
    with pytest.raises(CalibrationError, match=r"plan.repeats: 1 there, 2 here.* with the same options"):
        require_calibrated(bundle, CALIBRATION, other)


def test_damaged_judgements_are_refused(small_bundle_copy: Path) -> None:
    bundle = open_bundle(small_bundle_copy)

    def load(content: bytes) -> object:
        (small_bundle_copy / "parity.json").write_bytes(content)
        return load_parity(bundle)

    contents = [b"", b"{", b'{"format": 2}', b'{"format": 1, "records": [{}]}']
    assert_refused(BundleError, [(content, r"parity.json is invalid.*diffood verify") for content in contents], load)
