"""A gallery keeps both ends of a set, whatever the order in which images are scored."""

from dataclasses import replace

import numpy as np

from diffood.report.gallery import Extremes
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.results import ImageScore


def outcome(score: float) -> ImageScore:
    image = np.zeros((1, 2, 2), np.uint8)
    logits = np.array([1, 2, 3], np.float32)
    denoised = np.full((1, 2, 2), -1, np.float32)
    evidence = Evidence(image, logits, logits, np.array(True), 4, {"jump": np.full((4, 1), score)}, denoised)
    return ImageScore(score, np.array([score]), evidence, predicted=2, confidence=0.67, stage=1, evaluations=4)


def test_an_image_that_ended_before_anything_was_denoised_is_kept_without() -> None:
    whole = outcome(1.0)
    extremes = Extremes(3)
    extremes.see("early", replace(whole, evidence=whole.evidence.first(0)))
    assert extremes.highest[0].denoised is None


def test_extremes_are_the_ends_of_a_sort_whatever_the_order() -> None:
    scores = dict(zip(map(str, range(40)), np.random.default_rng(0).integers(0, 9, 40).astype(float), strict=True))
    found = []
    for order in (sorted(scores), sorted(scores, reverse=True)):
        extremes = Extremes(5)
        for identity in order:
            extremes.see(identity, outcome(scores[identity]))
        found.append(([image.id for image in extremes.highest], [image.id for image in extremes.lowest]))
    rising = sorted(scores, key=lambda identity: (scores[identity], identity))
    falling = sorted(scores, key=lambda identity: (-scores[identity], identity))
    assert found == [(falling[:5], rising[:5])] * 2


def test_few_images_are_shown_once_and_a_score_that_is_not_finite_first() -> None:
    for broken in (np.nan, np.inf, -np.inf):
        extremes = Extremes(3)
        for identity, score in (("a", 1.0), ("b", broken), ("c", 0.0), ("d", 2.0)):
            extremes.see(identity, outcome(score))
        assert [image.id for image in extremes.highest] == ["b", "d", "a"], broken
        assert [image.id for image in extremes.lowest] == ["c"], broken
        assert extremes.highest[0].denoised.nbytes == 4
        assert extremes.highest[0].denoised.base is None  # holds no other image in memory
