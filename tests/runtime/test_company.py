"""Laws of a pass: a score belongs to its image alone, to the bit, and a stream holds no more than a turn."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from endless_stream import Endless

from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import BATCHES_PER_TURN, Detector
from diffood.runtime.method.plan import Plan
from diffood.runtime.results import Scores

Pixels = npt.NDArray[np.uint8]

BATCH = 8
# More threads than images work on one call, in another order of sums: FP32 rounding remains.
ACROSS_SHAPES = 1e-5

PLANS = {
    # Lengths 2 and 5: the second start time joins the first one's steps.
    "mixed lengths": {"start_times": (120, 300), "stride": 60},
    # With a history, in a loop.
    "multistep": {"sampler": "pndm4", "start_times": (100, 200), "stride": 40},
    # Every repeat is compared with an original of its own.
    "reference": {"schedule": "reference", "sampler": "pndm2", "start_times": (120, 200), "stride": 80},
    "unguided neighbours": {"guidance": 0.0, "compare": "neighbour", "space": "features", "start_times": (60, 180)},
}


def plan(name: str) -> Plan:
    """One of PLANS, with two repeats and guidance unless it says otherwise."""
    return Plan.model_validate({"stride": 60, "repeats": 2, "guidance": 2.0, **PLANS[name]})


@pytest.fixture(scope="module")
def images(clothes: Pixels, digits: Pixels) -> Pixels:
    """Three in-distribution and four out-of-distribution images, mixed, uint8 [7, 28, 28]."""
    return np.concatenate([clothes[:3], digits[:4]])[[0, 3, 1, 4, 5, 2, 6]]


@dataclass(frozen=True)
class Case:
    """One of PLANS.

    Attributes:
        detector: Of this plan, at one batch shape.
        together: The scores of all images in one call: what every other way of asking must give.
    """

    detector: Detector
    together: Scores


@pytest.fixture(scope="module")
def cases(small_bundle: Bundle, images: Pixels) -> dict[str, Case]:
    """A case of each of PLANS."""
    detectors = {name: Detector.load(small_bundle, plan(name), batch=BATCH, threads=1) for name in PLANS}
    return {name: Case(detector, detector.score(images)) for name, detector in detectors.items()}


def assert_identical(found: Scores, expected: Scores, rows: Any) -> None:
    """Every number of `found` is that of these rows of `expected`, to the bit."""
    for name in ("score", "by_start", "predicted", "confidence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[rows], err_msg=name)


def test_scores_are_worth_comparing(cases: dict[str, Case], images: Pixels) -> None:
    for name, case in cases.items():
        assert np.isfinite(case.together.by_start).all(), name
        assert (case.together.by_start > 0).all(), name
        assert len(np.unique(case.together.score)) == len(images), name


def test_score_does_not_depend_on_order(cases: dict[str, Case], images: Pixels, subtests: pytest.Subtests) -> None:
    for (name, case), seed in itertools.product(cases.items(), [0, 1]):
        with subtests.test(name, seed=seed):
            order = np.random.default_rng(seed).permutation(len(images))
            assert_identical(case.detector.score(images[order]), case.together, order)


COMPANIES = {
    "two": [0, 1],
    "three": [6, 2, 4],
    **{f"{row} alone": [row] for row in range(7)},
    "the same image twice": [2, 0, 2, 2, 1, 0, 2, 2, 2],
}


def test_score_does_not_depend_on_company(cases: dict[str, Case], images: Pixels, subtests: pytest.Subtests) -> None:
    for (name, case), (company, rows) in itertools.product(cases.items(), COMPANIES.items()):
        with subtests.test(name, company=company):
            assert_identical(case.detector.score(images[rows]), case.together, rows)


def test_score_does_not_depend_on_what_was_scored_before(
    cases: dict[str, Case], images: Pixels, small_bundle: Bundle, subtests: pytest.Subtests
) -> None:
    for name, case in cases.items():
        with subtests.test(name):
            next(case.detector.stream(enumerate(images[::-1, None])))
            assert_identical(case.detector.score(images), case.together, slice(None))
            fresh = Detector.load(small_bundle, case.detector.plan, batch=BATCH, threads=1)
            assert_identical(fresh.score(images[3:5]), case.together, slice(3, 5))


def test_no_images_have_no_scores(cases: dict[str, Case], images: Pixels) -> None:
    for name, case in cases.items():
        none = case.detector.score(images[:0])
        assert none.score.shape == (0,), name
        assert none.by_start.shape == (0, len(case.detector.plan.start_times)), name


def test_a_score_does_not_depend_on_batch_or_threads(
    small_bundle: Bundle, cases: dict[str, Case], images: Pixels, subtests: pytest.Subtests
) -> None:
    for (name, case), (batch, threads) in itertools.product(cases.items(), [(1, 1), (3, 1), (8, 2), (64, 2)]):
        with subtests.test(name, batch=batch, threads=threads):
            other = Detector.load(small_bundle, case.detector.plan, batch=batch, threads=threads)
            assert_identical(other.score(images[:4]), case.together, slice(4))


def test_more_threads_than_images_change_rounding_only(
    small_bundle: Bundle, cases: dict[str, Case], images: Pixels, subtests: pytest.Subtests
) -> None:
    for name, case in cases.items():
        with subtests.test(name):
            found = Detector.load(small_bundle, case.detector.plan, batch=1, threads=3).score(images[:4])
            np.testing.assert_allclose(found.by_start, case.together.by_start[:4], rtol=0, atol=ACROSS_SHAPES)
            np.testing.assert_array_equal(found.predicted, case.together.predicted[:4])


def test_stream_pulls_no_more_than_it_works_on(small_bundle: Bundle, images: Pixels, subtests: pytest.Subtests) -> None:
    """An endless source: results come in order, and the stream never runs ahead by more than a turn."""
    for batch in [1, 3, BATCH]:
        with subtests.test(batch=batch):
            source = Endless(images)
            choice = Plan(start_times=(60, 120), stride=60, repeats=1, guidance=0.0)
            streaming = Detector.load(small_bundle, choice, batch=batch, threads=1)
            expected = streaming.score(images)
            for number, (key, result) in enumerate(itertools.islice(streaming.stream(source), 5)):
                assert key == number
                assert result.score == expected.score[number % len(images)]
                np.testing.assert_array_equal(result.evidence.by_start(2), expected.by_start[number % len(images)])
                assert source.pulled <= number + BATCHES_PER_TURN * batch
