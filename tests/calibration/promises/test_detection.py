"""Bounds of detection: those of scipy, kept in simulated draws, and what a wanted share would take."""

import numpy as np
import pytest
from scipy.stats import binomtest

from diffood.calibration.promises.detection import bound_detection, seek_detection


def test_bounds_are_clopper_and_pearson_s(subtests: pytest.Subtests) -> None:
    for flagged, images, confidence in [(0, 10, 0.95), (10, 10, 0.95), (95, 100, 0.9), (1, 1, 0.99), (970, 1000, 0.95)]:
        with subtests.test(flagged=flagged, images=images):
            found = bound_detection(flagged, images, confidence)
            low = binomtest(flagged, images, alternative="greater").proportion_ci(confidence).low
            assert found.bound == pytest.approx(low, abs=1e-12)
            assert f"at least {low:.2%} of OOD images like these {images}" in found.statement
            assert found.statement.endswith("nothing is promised about OOD images of other kinds.")


def test_the_bound_holds_as_often_as_promised() -> None:
    draw = np.random.default_rng(0)
    for share in (0.5, 0.93):
        flagged = draw.binomial(60, share, 4000)
        bounds = np.array([bound_detection(k, 60, 0.9).bound for k in range(61)])
        broken = int((bounds[flagged] > share).sum())
        assert binomtest(broken, 4000, 0.1, alternative="greater").pvalue > 1e-4


def test_what_a_share_takes(subtests: pytest.Subtests) -> None:
    ind = np.arange(1000.0)
    for case, ood, asked, holds, enough in [
        ("all far out", np.full(100, 2000.0), 0.95, True, True),
        ("too few examples", np.full(20, 2000.0), 0.95, False, True),
        ("too few flagged", np.r_[np.full(60, 2000.0), np.full(40, 500.0)], 0.95, False, False),
    ]:
        with subtests.test(case=case):
            found = bound_detection(int((ood > 960).sum()), len(ood), 0.95)
            goal = seek_detection(asked, found, ind, ood)
            assert goal.holds == holds
            assert (goal.examples is not None) == enough
            if goal.examples:
                share = found.flagged / found.images
                assert bound_detection(int(share * goal.examples), goal.examples, 0.95).bound >= asked
                fewer = goal.examples - 1
                assert bound_detection(int(share * fewer), fewer, 0.95).bound < asked
            if goal.threshold is not None:
                assert bound_detection(int((ood > goal.threshold).sum()), len(ood), 0.95).bound >= asked
                assert goal.fpr is not None
                assert goal.fpr > (ind > goal.threshold).mean()
    few = bound_detection(20, 20, 0.95)
    assert seek_detection(0.95, few, ind, np.full(20, 2000.0)).fpr is None


def test_many_examples_are_judged_at_once() -> None:
    found = bound_detection(9_800, 10_000, 0.95)
    goal = seek_detection(0.95, found, np.arange(1000.0), np.arange(10_000.0))
    assert (goal.holds, goal.threshold) == (True, np.nextafter(463.0, -np.inf))
