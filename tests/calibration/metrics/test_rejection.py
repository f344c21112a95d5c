"""The rejection and open-set curves: by hand, against slow writings, and what they cannot depend on."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from diffood.calibration.metrics.rates import auroc
from diffood.calibration.metrics.rejection import KEPT, measure_rejection, oscr, rejection_curve
from diffood.errors import UsageError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Predictions = tuple[FloatArray, IntArray, IntArray]


def as_predictions(rows: list[tuple[int, int, int]]) -> Predictions:
    scores, labels, predicted = np.array(rows).T
    return scores.astype(np.float64), labels, predicted


predictions = st.lists(
    st.tuples(st.integers(-4, 4), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60
).map(as_predictions)
ood_scores = st.lists(st.integers(-4, 4), min_size=1, max_size=40).map(lambda rows: np.array(rows, dtype=np.float64))


def test_rejection_curve_by_hand() -> None:
    scores, labels = np.array([3.0, 1.0, 2.0, 4.0]), np.array([0, 1, 2, 3])
    found = rejection_curve(scores, labels, np.array([0, 1, 0, 0]))
    # From the lowest score: right, wrong, right, wrong.
    np.testing.assert_allclose(found.kept, [1, 3 / 4, 1 / 2, 1 / 4])
    np.testing.assert_allclose(found.accuracy, [1 / 2, 2 / 3, 1 / 2, 1])
    assert found.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found.excess_aurc == pytest.approx(found.aurc - (0 + 0 + 1 / 3 + 1 / 2) / 4)


@given(images=predictions)
def test_aurc_is_the_mean_risk_of_what_scores_no_higher(images: Predictions) -> None:
    scores, labels, predicted = images
    found = rejection_curve(scores, labels, predicted)
    wrong = (labels != predicted).tolist()
    risks = [np.mean([w for s, w in zip(scores, wrong, strict=True) if s <= limit]) for limit in scores]
    assert found.aurc == pytest.approx(np.mean(risks))
    assert found.excess_aurc >= -1e-12
    assert (found.kept[0], found.accuracy[0]) == (1.0, pytest.approx(1 - np.mean(wrong)))
    assert np.all(np.diff(found.kept) < 0)


@given(images=predictions)
def test_a_score_that_keeps_right_images_first_has_no_excess(images: Predictions) -> None:
    _, labels, predicted = images
    perfect = np.argsort(np.argsort(labels != predicted, kind="stable")).astype(np.float64)
    assert rejection_curve(perfect, labels, predicted).excess_aurc == pytest.approx(0, abs=1e-12)


def test_accuracy_when_at_least_a_share_is_kept() -> None:
    scores, labels = np.array([3.0, 1.0, 2.0, 4.0]), np.array([0, 1, 2, 3])
    curve = rejection_curve(scores, labels, np.array([0, 1, 0, 0]))
    expected = {1.0: 1 / 2, 0.76: 1 / 2, 0.75: 2 / 3, 0.5: 1 / 2, 0.2: 1, 0.0: 1}
    assert {kept: curve.accuracy_at(kept) for kept in expected} == pytest.approx(expected)


@given(images=predictions, ood=ood_scores)
def test_rejection_collects_both_curves(images: Predictions, ood: FloatArray) -> None:
    found, curve = measure_rejection(*images, ood), rejection_curve(*images)
    content = found.as_json()
    assert content["accuracy"] == pytest.approx(accuracy_score(*images[1:]))
    assert found.interval[0] <= content["accuracy"] <= found.interval[1]
    assert content["accuracy_at_kept"] == {f"{kept:.2f}": curve.accuracy_at(kept) for kept in KEPT}
    assert (content["aurc"], content["excess_aurc"]) == (curve.aurc, curve.excess_aurc)
    assert content["oscr"] == oscr(*images, ood).area


def slow_oscr(images: Predictions, ood: FloatArray) -> float:
    """Mean over OOD images of the share of InD images that are right and score below, ties counted half.

    The area by exchanging the sums: no curve is built.
    """
    below = [
        ((score < limit) + (score == limit) / 2) * (label == guess)
        for limit in ood
        for score, label, guess in zip(*images, strict=True)
    ]
    return float(np.mean(below))


@given(images=predictions, ood=ood_scores)
def test_oscr_equals_a_slow_writing(images: Predictions, ood: FloatArray) -> None:
    found = oscr(*images, ood)
    accuracy = np.mean(images[1] == images[2])
    assert found.area == pytest.approx(slow_oscr(images, ood))
    assert found.area <= accuracy + 1e-12
    assert (found.false_positive_rate[-1], found.correct_classification_rate[-1]) == (1.0, pytest.approx(accuracy))
    assert np.all(np.diff(found.false_positive_rate) >= 0)
    assert np.all(np.diff(found.correct_classification_rate) >= 0)


@given(images=predictions, ood=ood_scores)
def test_oscr_without_errors_is_the_auroc(images: Predictions, ood: FloatArray) -> None:
    scores, labels, _ = images
    assert oscr(scores, labels, labels, ood).area == pytest.approx(auroc(scores, ood))


def test_unusable_arrays_are_refused_by_name() -> None:
    scores, classes = np.array([1.0, 2.0]), np.array([0, 1])
    with pytest.raises(UsageError, match=r"^In-distribution scores .* nan at position 0"):
        rejection_curve(np.array([math.nan, 1.0]), classes, classes)
    with pytest.raises(UsageError, match=r"^True classes have shape \[3\]; expected \[2\]"):
        rejection_curve(scores, np.array([0, 1, 2]), classes)
    with pytest.raises(UsageError, match=r"^Predicted classes are float64"):
        oscr(scores, classes, np.array([0.0, 1.0]), scores)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^Predicted classes contain the class -1"):
        oscr(scores, classes, np.array([0, -1]), scores)
    with pytest.raises(UsageError, match=r"^Out-of-distribution scores are empty"):
        oscr(scores, classes, classes, np.array([]))
