"""Laws of the metrics, and equality with scikit-learn's curves and scipy's exact interval."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from refusals import assert_refused
from scipy import stats
from sklearn import metrics as reference

from diffood.calibration.metrics.rates import (
    FalseAlarms,
    aupr_in,
    aupr_out,
    auroc,
    clopper_pearson,
    false_alarms,
    fpr_at_95_detection,
    missed_at_95_kept,
    set_metrics,
)
from diffood.errors import UsageError

FloatArray = npt.NDArray[np.float64]
Metric = Callable[[FloatArray, FloatArray], float]

METRICS: list[Metric] = [auroc, aupr_in, aupr_out, fpr_at_95_detection, missed_at_95_kept]
tied_scores = hnp.arrays(np.float64, st.integers(1, 80), elements=st.integers(-6, 6).map(float))
distinct_scores = hnp.arrays(np.float64, 120, elements=st.floats(-1e6, 1e6), unique=True)


def labelled(ind: FloatArray, ood: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Labels (OOD = 1) and scores, both [n + k], as scikit-learn takes them."""
    return np.repeat([0.0, 1.0], [ind.size, ood.size]), np.concatenate([ind, ood])


@given(ind=tied_scores, ood=tied_scores)
def test_auroc_equals_scikit_learn(ind: FloatArray, ood: FloatArray) -> None:
    assert auroc(ind, ood) == pytest.approx(reference.roc_auc_score(*labelled(ind, ood)), abs=1e-12)


@given(ind=tied_scores, ood=tied_scores)
def test_aupr_equals_the_trapezoid_under_scikit_learns_curve(ind: FloatArray, ood: FloatArray) -> None:
    labels, scores = labelled(ind, ood)
    precision, recall, _ = reference.precision_recall_curve(labels, scores)
    assert aupr_out(ind, ood) == pytest.approx(reference.auc(recall, precision), abs=1e-12)
    precision, recall, _ = reference.precision_recall_curve(1 - labels, -scores)
    assert aupr_in(ind, ood) == pytest.approx(reference.auc(recall, precision), abs=1e-12)


@given(ind=tied_scores, ood=tied_scores)
def test_fpr_at_95_detection_equals_the_first_point_of_the_roc_curve(ind: FloatArray, ood: FloatArray) -> None:
    false_rate, true_rate, _ = reference.roc_curve(*labelled(ind, ood), drop_intermediate=False)
    assert fpr_at_95_detection(ind, ood) == pytest.approx(false_rate[np.argmax(true_rate >= 0.95)], abs=1e-12)


@given(scores=distinct_scores, split=st.integers(1, 119))
def test_fpr_at_95_detection_equals_openood_on_distinct_scores(scores: FloatArray, split: int) -> None:
    ind, ood = scores[:split], scores[split:]
    false_rate, true_rate, _ = reference.roc_curve(*labelled(ind, ood))
    assert fpr_at_95_detection(ind, ood) == pytest.approx(false_rate[np.argmax(true_rate >= 0.95)], abs=1e-12)


def test_ties_that_scikit_learn_drops_do_not_worsen_fpr_at_95_detection() -> None:
    both = np.arange(100.0)
    false_rate, true_rate, _ = reference.roc_curve(*labelled(both, both))
    assert false_rate[np.argmax(true_rate >= 0.95)] == 1.0
    assert fpr_at_95_detection(both, both) == 0.95


@given(ind=tied_scores, ood=tied_scores)
def test_missed_at_95_kept_is_the_mirror_image(ind: FloatArray, ood: FloatArray) -> None:
    assert missed_at_95_kept(ind, ood) == fpr_at_95_detection(-ood, -ind)


@given(a=tied_scores, b=tied_scores)
def test_auroc_of_swapped_sets_adds_to_one(a: FloatArray, b: FloatArray) -> None:
    assert auroc(a, b) + auroc(b, a) == pytest.approx(1.0, abs=1e-12)


@given(
    rising=st.sampled_from([np.exp, np.cbrt, lambda scores: 3 * scores - 7]),
    metric=st.sampled_from(METRICS),
    ind=tied_scores,
    ood=tied_scores,
)
def test_metrics_do_not_change_under_increasing_maps(
    rising: Callable[[FloatArray], FloatArray], metric: Metric, ind: FloatArray, ood: FloatArray
) -> None:
    assert metric(rising(ind), rising(ood)) == metric(ind, ood)


@given(metric=st.sampled_from(METRICS), ind=tied_scores, ood=tied_scores)
def test_metrics_are_shares(metric: Metric, ind: FloatArray, ood: FloatArray) -> None:
    assert 0 <= metric(ind, ood) <= 1 + 1e-12


def test_metrics_by_hand() -> None:
    for ind, ood, *expected in (
        ([0, 1, 2], [3, 4], 1.0, 0.0, 0.0),
        ([3, 4], [0, 1, 2], 0.0, 1.0, 1.0),
        ([1, 1], [1], 0.5, 1.0, 1.0),
        ([0, 1, 2, 3], [2, 4], 0.8125, 0.5, 0.5),
        (range(20), [18, 19, 20], 1 - 2 / 60, 0.1, 1 / 3),
    ):
        scores = np.array(ind, dtype=np.float64), np.array(ood, dtype=np.float64)
        found = auroc(*scores), fpr_at_95_detection(*scores), missed_at_95_kept(*scores)
        assert found == pytest.approx(tuple(expected)), (ind, ood)


def test_aupr_by_hand() -> None:
    # From the top: OOD, InD, OOD; points (recall, precision) (0, 1), (1/2, 1), (1/2, 1/2), (1, 2/3).
    assert aupr_out(np.array([2.0]), np.array([3.0, 1.0])) == pytest.approx(0.5 + 0.5 * (1 / 2 + 2 / 3) / 2)


@given(
    n=st.integers(1, 5000),
    share=st.floats(0, 1) | st.sampled_from([0.0, 1.0]),
    confidence=st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
def test_clopper_pearson_is_the_pair_of_beta_quantiles(n: int, share: float, confidence: float) -> None:
    hits, tail = round(share * n), (1 - confidence) / 2
    low, high = clopper_pearson(hits, n, confidence)
    assert low == pytest.approx(stats.beta.ppf(tail, hits, n - hits + 1) if hits else 0, abs=1e-12)
    assert high == pytest.approx(stats.beta.isf(tail, hits + 1, n - hits) if hits < n else 1, abs=1e-12)
    assert low <= hits / n <= high


def test_clopper_pearson_refuses_impossible_counts() -> None:
    cases = [((hits, n), f"{hits} hits in {n} trials") for hits, n in ((-1, 10), (11, 10), (0, 0))]
    assert_refused(UsageError, cases, lambda counts: clopper_pearson(*counts))
    with pytest.raises(UsageError, match="confidence is 95"):
        clopper_pearson(1, 2, 95)


def test_a_score_on_the_threshold_is_not_a_false_alarm() -> None:
    scores = np.array([0.0, 1.0, 1.0, 2.0])
    assert false_alarms(scores, 1.0) == FalseAlarms(0.25, clopper_pearson(1, 4), 1, 4)
    assert false_alarms(scores, 2.0).rate == 0.0


@given(ind=tied_scores, ood=tied_scores, threshold=st.integers(-7, 7))
def test_set_metrics_gathers_the_single_functions(ind: FloatArray, ood: FloatArray, threshold: int) -> None:
    found = set_metrics(ind, ood, threshold)
    assert found.auroc == auroc(ind, ood)
    assert (found.aupr_in, found.aupr_out) == (aupr_in(ind, ood), aupr_out(ind, ood))
    assert found.fpr_at_95_detection == fpr_at_95_detection(ind, ood)
    assert found.missed_at_95_kept == missed_at_95_kept(ind, ood)
    assert found.detection_rate == np.mean(ood > threshold)
    assert found.detection_interval == clopper_pearson(int(np.count_nonzero(ood > threshold)), ood.size)
    assert found.count == ood.size


def test_unusable_scores_are_refused_by_name() -> None:
    good = np.array([1.0, 2.0])
    broken = [([], "are empty"), ([[1.0]], r"shape \[1, 1\]"), ([0.0, math.nan], "nan at position 1")]
    ind = [(np.array(scores), f"^In-distribution scores .*{message}") for scores, message in broken]
    ood = [(np.array(scores), f"^Out-of-distribution scores .*{message}") for scores, message in broken]
    for metric in (*METRICS, partial(set_metrics, threshold=0.0)):
        assert_refused(UsageError, ind, partial(metric, ood=good))
        assert_refused(UsageError, ood, partial(metric, good))
    assert_refused(UsageError, ind, partial(false_alarms, threshold=0.0))
