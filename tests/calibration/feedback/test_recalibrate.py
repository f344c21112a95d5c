"""A calibration from labelled rows keeps its promise though labels followed the old threshold; a naive one does not."""

import numpy as np
import pytest
from made_up import calibration_of
from scipy.stats import binom, norm

from diffood.calibration.calibrate import CalibrateRequest
from diffood.calibration.feedback.recalibrate import fit_on_feedback
from diffood.calibration.promises.detection import bound_detection
from diffood.calibration.promises.thresholds import fit_threshold
from diffood.errors import CalibrationError
from diffood.runtime.bundle.feedback import FeedbackRecord, LabelDesign, LabelTask

OLD = calibration_of([0.0, 1.0, 2.0], 1.645, allowed_above=1)
REQUEST = CalibrateRequest(bundle=None, images=(), fpr=0.05, confidence=0.9)  # type: ignore[arg-type]


def labelled(draw: np.random.Generator, design: LabelDesign, count: int, start: int) -> FeedbackRecord:
    """Feedback on `count` in-distribution rows with standard normal scores, drawn as the design says."""
    scores = draw.normal(size=count).tolist()
    rows = [(f"{start + place}", score, score > OLD.threshold) for place, score in enumerate(scores)]
    drawn = [row for row in rows if design.draws(row[0], "00" * 32, flagged=row[2])]
    tasks = tuple(
        LabelTask(id=name, sha256="00" * 32, flagged=high, score=score, predicted_class=0, answer="ind", turn=turn)
        for turn, (name, score, high) in enumerate(drawn, 1)
    )
    return FeedbackRecord(calibration_sha256=OLD.sha256, bundle_digest="", design=design, tasks=tasks)


@pytest.mark.parametrize("design", [LabelDesign(flagged=0.1, passed=0.5), LabelDesign(flagged=1.0, passed=0.2)])
def test_a_calibration_from_drawn_labels_keeps_its_promise_and_a_naive_one_does_not(design: LabelDesign) -> None:
    """Thresholds of 60 calibrations; the false-alarm rate of each is known, as scores are standard normal."""
    draw, rates = np.random.default_rng(0), dict[str, list[float]]()
    for trial in range(60):
        record = labelled(draw, design, 1500, trial * 1500)
        scores = np.array([task.score for task in record.tasks])
        ours = fit_on_feedback(OLD, record, REQUEST, ("a", "b"))
        assert ours.n < len(scores)
        naive = fit_threshold(scores, 0.05, 0.9, "pac").value
        for name, threshold in (("ours", ours.threshold), ("naive", naive)):
            rates.setdefault(name, []).append(float(norm.sf(threshold)))
    assert sum(rate > 0.05 for rate in rates["ours"]) <= binom.ppf(0.999, 60, 0.1)
    assert np.mean(rates["ours"]) > 0.02  # it is no promise kept by flagging nothing
    if design.flagged < design.passed:  # few of the high scores: the threshold lies too low, most promises are broken
        assert sum(rate > 0.05 for rate in rates["naive"]) > 50
    else:  # too many of them: OOD images pass that should not
        assert np.mean(rates["naive"]) < 0.015


def test_detection_is_counted_at_the_new_threshold_on_a_uniform_sample() -> None:
    """Labelled OOD rows: 40 high and 40 low scores. The bound that the old calibration has counts other examples."""
    design = LabelDesign(flagged=1.0, passed=0.5)
    record = labelled(np.random.default_rng(0), design, 1500, 0)
    rows = [(f"ood-{place}", 9.0 if place < 40 else -9.0) for place in range(80)]
    drawn = [row for row in rows if design.draws(row[0], "00" * 32, flagged=row[1] > 0)]
    ood = tuple(
        LabelTask(id=name, sha256="00" * 32, flagged=high > 0, score=high, predicted_class=0, answer="ood", turn=turn)
        for turn, (name, high) in enumerate(drawn, len(record.tasks) + 1)
    )
    kept = [high for name, high in drawn if design.thins(name, "00" * 32, flagged=high > 0)]
    old = OLD.model_copy(update={"detection": bound_detection(1, 1, 0.9)})
    record = record.model_copy(update={"tasks": (*record.tasks, *ood)})
    found = fit_on_feedback(old, record, REQUEST, ("a", "b")).detection
    assert found is not None
    assert (found.images, found.flagged) == (len(kept), sum(high > 0 for high in kept))
    assert 20 < found.images < len(drawn)
    alone = fit_on_feedback(old, labelled(np.random.default_rng(0), design, 1500, 0), REQUEST, ("a", "b"))
    assert alone.detection is None


def test_too_few_labels_are_told_with_both_numbers() -> None:
    record = labelled(np.random.default_rng(0), LabelDesign(flagged=1.0, passed=0.1), 200, 0)
    with pytest.raises(CalibrationError, match=r"Of \d+ rows that are labelled in-distribution, \d+ make a uniform"):
        fit_on_feedback(OLD, record, REQUEST, ("a", "b"))
