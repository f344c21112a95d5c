"""Intervals of FPR@95: equal to a slow bootstrap, with their coverage, and wider where all draws agree."""

import numpy as np
import numpy.typing as npt
import pytest
from draws import at_least, simulated
from scipy import stats

from diffood.calibration.metrics.bootstrap import compare_fpr, distribution_free, mean_fpr_interval
from diffood.calibration.metrics.intervals import ScoredSets
from diffood.calibration.metrics.rates import fpr_at_95_detection
from diffood.errors import UsageError

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 200
"""Bootstrap draws in each simulated evaluation: a percentile of 200 is rough, which costs coverage."""

NOMINAL = 0.93
"""Below 0.95: percentile intervals are right to first order only, and RESAMPLES are few."""


def true_fpr(distance: float) -> float:
    """FPR@95 of two unit normals this far apart."""
    return float(stats.norm.sf(distance + stats.norm.ppf(0.05)))


def two_scores(generator: np.random.Generator, count: int, first: float, second: float) -> FloatArray:
    """Two scores [2, count] of the same images, correlated at 0.7, with these means and unit variance."""
    common, own = generator.normal(size=count), generator.normal(size=(2, count))
    return np.sqrt(0.7) * common + np.sqrt(0.3) * own + np.array([[first], [second]])


def test_the_interval_is_that_of_a_slow_bootstrap() -> None:
    generator = np.random.default_rng(1)
    # Rounded, so that there are ties.
    ind = np.round(generator.normal(size=150), 1)
    sets = {"a": np.round(generator.normal(2, 1, 100), 1), "b": np.round(generator.normal(3, 1, 60), 1)}
    slow = []
    for _ in range(4000):
        chosen = generator.choice(ind, ind.size)
        slow.append(np.mean([fpr_at_95_detection(chosen, generator.choice(ood, ood.size)) for ood in sets.values()]))
    found = mean_fpr_interval(ScoredSets(ind, sets), draws=4000)
    assert found.value == pytest.approx(np.mean([fpr_at_95_detection(ind, ood) for ood in sets.values()]))
    assert (found.low, found.high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.015)


def test_the_comparison_is_that_of_a_slow_bootstrap_with_the_same_images_for_both() -> None:
    generator = np.random.default_rng(2)
    ind, ood = two_scores(generator, 150, 0, 0), two_scores(generator, 100, 2.5, 2)
    slow = []
    for _ in range(4000):
        i, j = generator.integers(150, size=150), generator.integers(100, size=100)
        slow.append([fpr_at_95_detection(ind[s, i], ood[s, j]) for s in (0, 1)])
    one, other = np.array(slow).T
    # Tails of 10 %: those of 2.5 % differ by a tenth between two slow bootstraps.
    pair = ScoredSets(ind[0], {"a": ood[0]}), ScoredSets(ind[1], {"a": ood[1]})
    found = compare_fpr(*pair, confidence=0.8, draws=4000)
    assert (found.difference.low, found.difference.high) == pytest.approx(
        np.quantile(one - other, [0.1, 0.9]), abs=0.02
    )
    assert found.ratio is not None
    assert (found.ratio.low, found.ratio.high) == pytest.approx(np.quantile(one / other, [0.1, 0.9]), rel=0.06)


@simulated(100, 1000)
def test_the_interval_covers_the_true_rate(draws: int) -> None:
    generator = np.random.default_rng(20261127)
    for distance in (2.0, 3.3):
        truth, held, held_free = true_fpr(distance), 0, 0
        for _ in range(draws):
            scored = ScoredSets(generator.normal(size=300), {"a": generator.normal(distance, 1, 300)})
            found, free = mean_fpr_interval(scored, draws=RESAMPLES), distribution_free(scored)
            held += found.low <= truth <= found.high
            held_free += free[0] <= truth <= free[1]
        assert at_least(held, draws, NOMINAL), distance
        assert at_least(held_free, draws, 0.95), distance


@simulated(100, 1000)
def test_the_paired_difference_and_ratio_over_sets_are_covered(draws: int) -> None:
    generator = np.random.default_rng(20261128)
    first, second = {"a": 2.4, "b": 3.0}, {"a": 2.1, "b": 2.8}
    one, other = (np.mean([true_fpr(distance) for distance in sets.values()]) for sets in (first, second))
    held = held_ratio = 0
    for _ in range(draws):
        ind = two_scores(generator, 300, 0, 0)
        sets = {name: two_scores(generator, 200, first[name], second[name]) for name in first}
        found = compare_fpr(
            ScoredSets(ind[0], {name: scores[0] for name, scores in sets.items()}),
            ScoredSets(ind[1], {name: scores[1] for name, scores in sets.items()}),
            draws=RESAMPLES,
        )
        held += found.difference.low <= one - other <= found.difference.high
        assert found.ratio is not None
        held_ratio += found.ratio.low <= one / other <= found.ratio.high
    assert at_least(held, draws, NOMINAL)
    assert at_least(held_ratio, draws, NOMINAL)


def test_without_flagged_images_the_interval_has_positive_length() -> None:
    perfect = ScoredSets(np.arange(1000.0), {"a": 2000 + np.arange(500.0), "b": 3000 + np.arange(500.0)})
    found = mean_fpr_interval(perfect, draws=50)
    assert (found.value, found.low) == (0.0, 0.0)
    # At least the limit for 0 of 1000 at the whole risk.
    assert 1 - 0.025 ** (1 / 1000) < found.high < 0.01
    itself = compare_fpr(perfect, perfect, draws=50)
    assert itself.ratio is None
    assert (itself.difference.value, itself.difference.p_value) == (0.0, 1.0)
    assert itself.difference.low < 0 < itself.difference.high


def test_a_score_does_not_differ_from_itself_and_a_clear_difference_is_seen() -> None:
    generator = np.random.default_rng(4)
    good = ScoredSets(generator.normal(size=500), {"a": generator.normal(4, 1, 400)})
    bad = ScoredSets(generator.normal(size=500), {"a": generator.normal(1, 1, 400)})
    same = compare_fpr(good, good, draws=100)
    assert (same.difference.value, same.difference.p_value) == (0.0, 1.0)
    assert same.ratio is not None
    assert same.ratio.value == 1
    clear = compare_fpr(good, bad, draws=400)
    assert clear.difference.high < 0
    assert clear.difference.p_value == pytest.approx(2 / 401)
    assert clear.ratio is not None
    assert clear.ratio.high < 1


def test_a_few_images_show_no_difference_even_when_all_draws_agree() -> None:
    ind = np.arange(5.0)
    best, worst = ScoredSets(ind, {"a": ind + 9}), ScoredSets(ind, {"a": ind - 9})
    found = compare_fpr(best, worst, draws=100).difference
    assert (found.value, found.p_value) == (-1.0, 1.0)
    assert found.low < 0 < found.high


def test_too_few_ood_images_bound_nothing_from_above() -> None:
    # With 20 images the score that catches 95 % may be below them all.
    assert distribution_free(ScoredSets(np.arange(100.0), {"a": 200 + np.arange(20.0)}))[1] == 1.0


def test_equal_seeds_give_equal_intervals() -> None:
    generator = np.random.default_rng(6)
    ind, ood = generator.normal(size=200), generator.normal(2, 1, 200)
    first = mean_fpr_interval(ScoredSets(ind, {"a": ood}), draws=300)
    assert mean_fpr_interval(ScoredSets(ind, {"a": ood}), draws=300) == first
    other = mean_fpr_interval(ScoredSets(ind, {"a": ood}), draws=300, seed=1)
    assert other != first
    assert (other.low, other.high) == pytest.approx((first.low, first.high), abs=0.05)


def test_no_draws_are_refused() -> None:
    with pytest.raises(UsageError, match="draws is 0"):
        mean_fpr_interval(ScoredSets(np.arange(5.0), {"a": np.arange(5.0)}), draws=0)
