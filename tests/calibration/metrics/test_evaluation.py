"""An evaluation: its intervals agree with its metrics, and classes are ordered by false alarms."""

import numpy as np
import pytest
from made_up import calibration_of

from diffood.calibration.metrics.evaluation import Evaluation, evaluate_scores
from diffood.calibration.metrics.intervals import Interval, ScoredSets, mean_auroc_interval
from diffood.calibration.metrics.rates import auroc
from diffood.calibration.scored_files import ScoredFiles
from diffood.errors import UsageError
from diffood.runtime.bundle.calibration import Calibration, ClassThreshold, ClassThresholds


def scored(scores: list[float], predicted: list[int], ids: tuple[str, ...] | None = None) -> ScoredFiles:
    values = np.array(scores, np.float64)
    ids = ids or tuple(f"{index:04d}.png" for index in range(len(scores)))
    return ScoredFiles(values, values[:, None], np.array(predicted, np.int64), np.full(len(values), 12), (), ids, ids)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Threshold 1.0 on a hundred scores, for a plan of one witness."""
    return calibration_of(np.linspace(0, 1, 100).tolist(), 1.0)


@pytest.fixture
def evaluation(calibration: Calibration) -> Evaluation:
    """Class 1 is flagged, class 0 is not; one OOD set is far from the in-distribution scores, one among them."""
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0, 1, 40).tolist(), rng.uniform(1.1, 2, 12).tolist()
    ind = scored(low + high, [0] * 40 + [1] * 12)
    ood = {
        "far": scored(rng.uniform(3, 4, 30).tolist(), [0] * 30),
        "near": scored(rng.uniform(0, 2, 30).tolist(), [1] * 30),
    }
    return evaluate_scores(calibration, ind, ood, {"far": "far"})


def test_the_class_with_the_most_alarms_comes_first(evaluation: Evaluation) -> None:
    first, second = evaluation.by_class
    assert (first.predicted, first.count, first.flagged) == (1, 12, 12)
    assert (second.predicted, second.count, second.flagged) == (0, 40, 0)
    assert first.p_value < 1e-6 < second.p_value


def test_intervals_contain_the_areas_and_account_for_shared_images(evaluation: Evaluation) -> None:
    for name, metrics in evaluation.sets.items():
        found = evaluation.intervals[name]
        assert found.low <= metrics.auroc <= found.high
        assert found.value == pytest.approx(metrics.auroc)
    together = ScoredSets(evaluation.scores["ind"], {name: evaluation.scores[name] for name in ("far", "near")})
    assert evaluation.mean_interval == mean_auroc_interval(together)
    assert evaluation.mean_interval.value == pytest.approx(evaluation.mean_auroc)


def test_groups_and_sets_have_intervals_of_auroc_and_fpr(evaluation: Evaluation) -> None:
    assert evaluation.groups.keys() == {"far"}
    assert evaluation.groups["far"].auroc == evaluation.intervals["far"]
    assert evaluation.groups["far"].fpr_at_95_detection == evaluation.fpr_intervals["far"]
    assert evaluation.overall.sets == ("far", "near")
    assert evaluation.overall.lowest_auroc == evaluation.overall.highest_fpr == "near"
    for name, metrics in evaluation.sets.items():
        assert evaluation.fpr_intervals[name].value == pytest.approx(metrics.fpr_at_95_detection)


def test_a_group_of_no_set_is_refused(calibration: Calibration) -> None:
    files = scored([0.1, 0.2], [0, 0])
    with pytest.raises(UsageError, match="not evaluated: else"):
        evaluate_scores(calibration, files, {"some": files}, {"else": "near"})


def test_a_score_of_one_witness_is_not_compared_with_it(evaluation: Evaluation) -> None:
    assert evaluation.witnesses is None
    assert evaluation.as_json()["witnesses"] is None


def test_accuracy_is_known_where_all_classes_are(calibration: Calibration) -> None:
    for ids, labelled, accuracy in (
        (("a/1", "a/2", "b/1", "b/2"), 4, 0.75),
        (("a/1", "a/2", "b/1", "c/2"), 3, None),
        (("1", "2", "3", "4"), 0, None),
    ):
        ind = scored([0.1, 0.2, 0.3, 0.4], [0, 1, 1, 1], ids)
        result = evaluate_scores(calibration, ind, {"some": scored([0.25, 2.0], [0, 0])}, class_names=("a", "b"))
        assert result.labelled == labelled
        assert (result.rejection.accuracy if result.rejection else None) == accuracy
        # below the first OOD score one of four is right, below the second three
        assert result.rejection is None or result.rejection.oscr.area == pytest.approx((0.25 + 0.75) / 2)


def test_json_has_intervals_and_classes(evaluation: Evaluation) -> None:
    content = evaluation.as_json()
    assert content["auroc_interval"]["near"] == [evaluation.intervals["near"].low, evaluation.intervals["near"].high]
    assert content["mean_auroc_interval"][0] < content["mean_auroc"] < content["mean_auroc_interval"][1]
    assert [row["predicted"] for row in content["false_alarms_by_class"]] == [1, 0]


def test_rates_are_at_the_threshold_of_each_class(calibration: Calibration) -> None:
    own = ClassThreshold(predicted=1, threshold=0.5, n=50, allowed_above=25, bound=0.9)
    per_class = ClassThresholds(
        needed=50, overall_bound=0.95, thresholds=(own,), classes=[1] * 50 + [0] * 30 + [2] * 20
    )
    calibration = calibration.model_copy(update={"method": "conformal", "per_class": per_class})
    ind, ood = scored([0.6, 0.6, 1.1, 0.4], [0, 1, 2, 1]), scored([0.6, 0.7, 0.7, 1.1, 1.2], [0, 1, 2, 2, 0])
    result = evaluate_scores(calibration, ind, {"ood": ood})
    assert (result.false_alarms.flagged, result.sets["ood"].detection_rate) == (2, 3 / 5)
    assert {row.predicted: row.flagged for row in result.by_class} == {0: 0, 1: 1, 2: 1}
    assert result.thresholds["ind"].tolist() == [1.0, 0.5, 1.0, 0.5]
    assert result.as_json()["class_thresholds"] == {"1": 0.5}
    assert result.sets["ood"].auroc == auroc(ind.scores, ood.scores)  # ranks know no threshold


def test_a_set_of_one_image_has_an_interval_from_0_to_1(calibration: Calibration) -> None:
    result = evaluate_scores(calibration, scored([0.1, 0.2], [0, 0]), {"one": scored([2.0], [0])})
    assert result.intervals["one"] == result.mean_interval == Interval(1.0, 0.0, 1.0)
    assert result.fpr_intervals["one"] == result.overall.fpr_at_95_detection == Interval(0.0, 0.0, 1.0)


def test_an_empty_set_is_refused(calibration: Calibration) -> None:
    with pytest.raises(UsageError, match="none"):
        evaluate_scores(calibration, scored([0.1, 0.2], [0, 0]), {"none": scored([], [])})
