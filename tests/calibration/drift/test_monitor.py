"""A watch over rows: what it counts and refuses, which groups it names, and that a rerun gives the same result."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_up import calibration_of
from refusals import assert_refused

from diffood.calibration.drift.monitor import DriftWatch, begin, conclude, observe, source_of
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.bundle.calibration import ClassThreshold, ClassThresholds
from diffood.serving.rows.row import Row

GENERATOR = np.random.default_rng(0)
CALIBRATION = calibration_of([(index + 0.5) / 400 for index in range(400)], 0.95, allowed_above=20)


def row(index: int, score: float, source: str = "door", name: str = "coat") -> Row:
    return Row(
        id=f"{source}/{index}.png",
        sha256=f"{index:064x}",
        status="ok",
        score=score,
        threshold=CALIBRATION.threshold,
        is_ood=score > CALIBRATION.threshold,
        predicted_class=0,
        class_name=name,
    )


CALM = [row(index, float(score)) for index, score in enumerate(GENERATOR.random(300))]
HIGH = [row(index, 1 + float(score), "gate", "shirt") for index, score in enumerate(GENERATOR.random(60), 300)]
MIXED = [*CALM, *(each for pair in zip(HIGH, CALM[:60], strict=True) for each in pair)]
REJECTED = Row("door/broken.png", "", "rejected", error="The file is empty.")


def watch_all(rows: list[Row], block: int = 100) -> DriftWatch:
    watch = begin(CALIBRATION, 0.01)
    for start in range(0, len(rows), block):
        watch = observe(watch, rows[start : start + block])
    return watch


def test_calm_rows_raise_no_alarm() -> None:
    report = conclude(watch_all(CALM))
    assert (report.rows, report.rejected, report.alarm, report.began) == (300, 0, None, None)
    assert report.classes == report.sources == ()
    assert report.log10_maximum < report.log10_alarm == 2
    assert report.flagged == sum(bool(each.is_ood) for each in CALM)


def test_a_drift_has_a_start_and_ranked_groups() -> None:
    report = conclude(watch_all(MIXED))
    assert report.alarm is not None
    assert report.began is not None
    assert 300 < report.alarm.row <= 330
    assert 290 <= report.began.row <= 305
    assert report.began.id == MIXED[report.began.row - 1].id
    assert [group.name for group in report.classes] == ["shirt", "coat"]
    assert [group.name for group in report.sources] == ["gate", "door"]
    assert report.sources[0].flagged_share == 1
    assert report.sources[0].p_value < 1e-6
    assert report.sources[1].p_value > 0.01
    assert report.log10_maximum == pytest.approx(report.path.max())
    assert "path" not in report.as_json()


def test_a_rerun_gives_the_same_report_whatever_the_blocks() -> None:
    whole = conclude(watch_all(MIXED)).as_json()
    for block in (1, 7, 420):
        assert conclude(watch_all(MIXED, block)).as_json() == whole, block


def test_the_order_of_rows_matters() -> None:
    assert conclude(watch_all(MIXED[::-1])).alarm != conclude(watch_all(MIXED)).alarm


def test_rejected_rows_are_counted_and_not_bet_on() -> None:
    report = conclude(watch_all([REJECTED, *CALM[:10], REJECTED]))
    assert (report.rows, report.rejected) == (12, 2)
    assert report.numbers.tolist() == list(range(2, 12))
    assert conclude(watch_all([REJECTED])).log10_martingale == 0
    assert conclude(begin(CALIBRATION, 0.01)).rows == 0


def test_rows_without_a_score_count_as_the_highest_scores() -> None:
    invalid = replace(CALM[0], status="invalid", score=None, is_ood=True)
    watch = watch_all([invalid] * 8)
    assert all(math.isinf(score) for score in watch.blocks[0].scores)
    report = conclude(watch)
    assert report.alarm is not None
    assert report.flagged == 8
    assert report.classes[0].mean_p_value == pytest.approx(1 / 401)


def test_rows_of_another_calibration_are_refused() -> None:
    old = replace(CALM[1], threshold=0.5)
    with pytest.raises(CalibrationError, match=r"Row 2 .* threshold 0\.5, .* has 0\.95: .* `diffood serve-batch`"):
        watch_all([CALM[0], old])


def test_rows_are_checked_against_the_threshold_of_their_class() -> None:
    own = ClassThreshold(predicted=1, threshold=0.9, n=200, allowed_above=20, bound=0.2)
    per_class = ClassThresholds(needed=150, overall_bound=0.3, thresholds=(own,), classes=[0, 1, 2, 1] * 100)
    calibration = CALIBRATION.model_copy(update={"method": "conformal", "per_class": per_class})
    of_its_own, of_all = replace(CALM[0], predicted_class=1, threshold=0.9), replace(CALM[1], predicted_class=0)
    watch = observe(begin(calibration, 0.01), [of_its_own, of_all, replace(CALM[2], predicted_class=None)])
    assert watch.rows == 3
    for wrong in (replace(of_its_own, threshold=0.95), replace(of_all, threshold=0.9)):
        with pytest.raises(CalibrationError, match=rf"Row 4 .* for class {wrong.predicted_class}: "):
            observe(watch, [wrong])


def test_a_level_is_a_share() -> None:
    cases = [(level, "--level is") for level in (0, 1, -0.1, math.nan)]
    assert_refused(UsageError, cases, lambda level: begin(CALIBRATION, level))


def test_the_source_is_the_first_folder() -> None:
    sources = {"a.png": ".", "door/a.png": "door", "door/x/a.png": "door", "/data/a.png": "data", "/a.png": "."}
    assert {identity: source_of(identity) for identity in sources} == sources
