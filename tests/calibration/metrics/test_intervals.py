"""DeLong's intervals: equal to a slow computation, with their coverage, and wider where a normal law fails."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from draws import at_least, exactly, simulated
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import roc_auc_score

from diffood.calibration.metrics.intervals import (
    CONFIDENCE,
    FEW,
    Difference,
    Interval,
    ScoredSets,
    mean_auroc_difference,
    mean_auroc_interval,
    placements,
)
from diffood.calibration.metrics.rates import auroc
from diffood.errors import UsageError

FloatArray = npt.NDArray[np.float64]

tied_scores = hnp.arrays(np.float64, st.integers(2, 40), elements=st.integers(-4, 4).map(float))


def auroc_interval(ind: FloatArray, ood: FloatArray, confidence: float = CONFIDENCE) -> Interval:
    """Of one set."""
    return mean_auroc_interval(ScoredSets(ind, {"ood": ood}), confidence)


def auroc_difference(first: tuple[FloatArray, FloatArray], second: tuple[FloatArray, FloatArray]) -> Difference:
    """Of one set, each score given as (ind, ood)."""
    one, other = (ScoredSets(ind, {"ood": ood}) for ind, ood in (first, second))
    return mean_auroc_difference(one, other)


def shift(area: float) -> float:
    """Distance of two unit normals with this AUROC."""
    return math.sqrt(2) * float(stats.norm.ppf(area))


def pairs(ind: FloatArray, ood: FloatArray) -> FloatArray:
    """DeLong's psi, [m, n]."""
    return (ood[:, None] > ind) + 0.5 * (ood[:, None] == ind)


def slow_covariance(scores: list[tuple[FloatArray, list[FloatArray]]]) -> FloatArray:
    """Covariance matrix of the AUROCs of all scores and sets, pair by pair: DeLong et al. 1988, eq. 5 to 7."""
    psi = [(score, k, pairs(ind, ood)) for score, (ind, sets) in enumerate(scores) for k, ood in enumerate(sets)]
    covariance = np.zeros((len(psi), len(psi)))
    for a, (_, set_a, one) in enumerate(psi):
        for b, (_, set_b, other) in enumerate(psi):
            covariance[a, b] = np.cov(one.mean(axis=0), other.mean(axis=0))[0, 1] / one.shape[1]
            if set_a == set_b:
                covariance[a, b] += np.cov(one.mean(axis=1), other.mean(axis=1))[0, 1] / one.shape[0]
    return covariance


@given(ind=tied_scores, ood=tied_scores)
def test_placements_are_the_means_of_all_pairs(ind: FloatArray, ood: FloatArray) -> None:
    of_ind, of_ood = placements(ind, ood)
    np.testing.assert_allclose(of_ind, pairs(ind, ood).mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(of_ood, pairs(ind, ood).mean(axis=1), atol=1e-12)


@given(ind=tied_scores, ood=tied_scores)
def test_the_estimate_is_the_auroc_of_rates_and_of_scikit_learn(ind: FloatArray, ood: FloatArray) -> None:
    found = auroc_interval(ind, ood)
    labels = np.repeat([0, 1], [ind.size, ood.size])
    assert found.value == pytest.approx(auroc(ind, ood), abs=1e-12)
    assert found.value == pytest.approx(roc_auc_score(labels, np.concatenate([ind, ood])), abs=1e-12)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


@given(ind=tied_scores, ood=tied_scores)
def test_swapped_sides_mirror_the_interval(ind: FloatArray, ood: FloatArray) -> None:
    there, back = auroc_interval(ind, ood), auroc_interval(-ind, -ood)
    assert (back.low, back.high) == pytest.approx((1 - there.high, 1 - there.low), abs=1e-9)


@given(ind=tied_scores, ood=tied_scores, slope=st.sampled_from([1.0, 3.0]))
def test_a_score_does_not_differ_from_an_increasing_map_of_itself(
    ind: FloatArray, ood: FloatArray, slope: float
) -> None:
    found = auroc_difference((ind, ood), (slope * ind - 1, slope * ood - 1))
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.low < 0 < found.high


def test_the_intervals_equal_a_slow_writing_with_all_covariances() -> None:
    generator = np.random.default_rng(5)
    sizes = (40, 60, 25)

    def score(noise: float) -> tuple[FloatArray, list[FloatArray]]:
        # Rounded, so that there are ties.
        return np.round(base + noise * generator.normal(size=50), 1), [
            np.round(ood + noise * generator.normal(size=ood.size), 1) for ood in oods
        ]

    base, oods = generator.normal(size=50), [generator.normal(1, 1, size) for size in sizes]
    first, second = score(0.3), score(0.9)
    covariance = slow_covariance([first, second])
    areas = np.array([pairs(ind, ood).mean() for ind, sets in (first, second) for ood in sets])
    one, other = (ScoredSets(ind, named(sets)) for ind, sets in (first, second))

    weights = np.array([1 / 3] * 3 + [0] * 3)
    mean, error = float(weights @ areas), math.sqrt(weights @ covariance @ weights)
    found = mean_auroc_interval(one)
    logit, reach = math.log(mean / (1 - mean)), 1.959963984540054 * error / (mean * (1 - mean))
    assert found.value == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx([1 / (1 + math.exp(-x)) for x in (logit - reach, logit + reach)])

    weights = np.array([1 / 3] * 3 + [-1 / 3] * 3)
    value, error = float(weights @ areas), math.sqrt(weights @ covariance @ weights)
    difference = mean_auroc_difference(one, other)
    assert difference.value == pytest.approx(value)
    assert (difference.low, difference.high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=1e-5)
    assert difference.p_value == pytest.approx(2 * stats.norm.sf(abs(value) / error))


def named(sets: list[FloatArray]) -> dict[str, FloatArray]:
    return {f"set {k}": ood for k, ood in enumerate(sets)}


def test_delongs_error_equals_the_bootstraps() -> None:
    generator = np.random.default_rng(11)
    ind, ood = generator.normal(size=200), generator.normal(shift(0.85), 1, 150)
    drawn = [auroc(generator.choice(ind, ind.size), generator.choice(ood, ood.size)) for _ in range(2000)]
    found = auroc_interval(ind, ood)
    log_odds = [math.log(area / (1 - area)) for area in (found.low, found.high)]
    error = (log_odds[1] - log_odds[0]) / (2 * 1.96) * found.value * (1 - found.value)
    assert error == pytest.approx(np.std(drawn), rel=0.08)


@simulated(300, 2000)
def test_the_interval_covers_the_true_auroc(draws: int) -> None:
    generator = np.random.default_rng(20261123)
    for area in (0.8, 0.98):
        held = 0
        for _ in range(draws):
            found = auroc_interval(generator.normal(size=300), generator.normal(shift(area), 1, 300))
            held += found.low <= area <= found.high
        assert exactly(held, draws, 0.95), area


@simulated(300, 2000)
def test_the_mean_over_sets_is_covered_only_with_the_shared_images_accounted_for(draws: int) -> None:
    generator = np.random.default_rng(20261124)
    areas, sizes = {"a": 0.75, "b": 0.85, "c": 0.95}, {"a": 300, "b": 400, "c": 200}
    truth, held, held_naively = 0.85, 0, 0
    for _ in range(draws):
        ind = generator.normal(size=150)
        sets = {name: generator.normal(shift(area), 1, sizes[name]) for name, area in areas.items()}
        found = mean_auroc_interval(ScoredSets(ind, sets))
        held += found.low <= truth <= found.high
        singles = [auroc_interval(ind, ood) for ood in sets.values()]
        naive = math.sqrt(sum((single.high - single.low) ** 2 for single in singles)) / 3 / 2
        held_naively += abs(found.value - truth) <= naive
    assert exactly(held, draws, 0.95)
    assert held_naively / draws < 0.9


@simulated(150, 2000)
@pytest.mark.parametrize("sets", [1, 2])
def test_the_paired_difference_is_covered_and_its_test_is_level(sets: int, draws: int) -> None:
    generator = np.random.default_rng(20261125)
    names = [f"set {k}" for k in range(sets)]

    def two(count: int, first: float, second: float) -> FloatArray:
        """Two scores [2, count] of the same images, correlated at 0.7, with unit variance."""
        common, own = generator.normal(size=count), generator.normal(size=(2, count))
        return math.sqrt(0.7) * common + math.sqrt(0.3) * own + np.array([[first], [second]])

    held = rejected = 0
    for _ in range(draws):
        ind = two(200, 0, 0)
        unequal = {name: two(150, shift(0.88), shift(0.84)) for name in names}
        found = mean_auroc_difference(
            ScoredSets(ind[0], {name: unequal[name][0] for name in names}),
            ScoredSets(ind[1], {name: unequal[name][1] for name in names}),
        )
        held += found.low <= 0.04 <= found.high
        equal = {name: two(150, shift(0.86), shift(0.86)) for name in names}
        found = mean_auroc_difference(
            ScoredSets(ind[0], {name: equal[name][0] for name in names}),
            ScoredSets(ind[1], {name: equal[name][1] for name in names}),
        )
        rejected += found.p_value <= 0.05
        assert (found.p_value <= 0.05) == (not found.low <= 0 <= found.high)
    assert exactly(held, draws, 0.95)
    assert exactly(rejected, draws, 0.05)


@simulated(150, 2000)
def test_near_one_the_interval_still_covers(draws: int) -> None:
    # all OOD images are far above, but for a rare kind far below: a sample often has none of them
    generator = np.random.default_rng(20261126)
    for missed in (0.002, 0.005, 0.02):
        held = 0
        for _ in range(draws):
            ood = np.where(generator.random(300) < missed, -10.0, 10.0) + generator.random(300)
            found = auroc_interval(generator.random(300), ood)
            held += found.low <= 1 - missed <= found.high
        assert at_least(held, draws, 0.95), missed


def test_perfect_separation_is_bounded_by_the_number_of_pairs() -> None:
    for n, m in ((10, 300), (300, 300), (10_000, 500)):
        found = auroc_interval(np.arange(float(n)), n + np.arange(float(m)))
        assert (found.value, found.high) == (1.0, 1.0)
        assert found.low == pytest.approx(0.025 ** (1 / min(n, m)))
        worst = auroc_interval(-np.arange(float(n)), -n - np.arange(float(m)))
        assert (worst.low, worst.value, worst.high) == pytest.approx((0, 0, 1 - found.low))


def test_one_misordered_image_never_makes_the_interval_shorter_than_none() -> None:
    ind, ood = np.arange(300.0), 300 + np.arange(300.0)
    none = auroc_interval(ind, ood)
    for moved in range(1, FEW):
        some = ood.copy()
        some[:moved] = 298.5
        assert auroc_interval(ind, some).low < none.low


def test_constant_and_perfect_scores_have_intervals_of_positive_length() -> None:
    ind, ood = np.arange(100.0), 100 + np.arange(100.0)
    constant = auroc_interval(np.zeros(100), np.zeros(100))
    assert constant.low < constant.value == 0.5 < constant.high
    rivals = auroc_difference((ind, ood), (ind**2, ood**2))
    assert (rivals.value, rivals.p_value) == (0.0, 1.0)
    assert rivals.high == pytest.approx(1 - 0.025 ** (1 / 100))
    against_constant = auroc_difference((ind, ood), (np.zeros(100), np.zeros(100)))
    assert 0 < against_constant.low < against_constant.value == 0.5 < against_constant.high
    assert 0 < against_constant.p_value < 1e-9


def test_a_higher_confidence_is_longer() -> None:
    generator = np.random.default_rng(3)
    scores = generator.normal(size=50), generator.normal(1, 1, 50)
    shorter, longer = auroc_interval(*scores, confidence=0.8), auroc_interval(*scores, confidence=0.99)
    assert longer.low < shorter.low < shorter.value < shorter.high < longer.high


def test_scores_that_cannot_be_compared_are_refused_by_name() -> None:
    one, two = np.array([1.0]), np.array([1.0, 2.0])
    good = ScoredSets(two, {"near": two})
    with pytest.raises(UsageError, match="In-distribution scores are of one image"):
        auroc_interval(one, two)
    with pytest.raises(UsageError, match="Scores of the set near are of one image"):
        mean_auroc_interval(ScoredSets(two, {"near": one}))
    with pytest.raises(UsageError, match=r"Scores of the set near contain .* nan at position 1"):
        mean_auroc_interval(ScoredSets(two, {"near": np.array([1.0, math.nan])}))
    with pytest.raises(UsageError, match="No out-of-distribution set"):
        mean_auroc_interval(ScoredSets(two, {}))
    with pytest.raises(UsageError, match="confidence is 95"):
        auroc_interval(two, two, confidence=95)
    with pytest.raises(UsageError, match="different sets: near against far"):
        mean_auroc_difference(good, ScoredSets(two, {"far": two}))
    with pytest.raises(UsageError, match="near images are of 2 and 3 images"):
        mean_auroc_difference(good, ScoredSets(two, {"near": np.arange(3.0)}))
    with pytest.raises(UsageError, match="in-distribution images are of 2 and 3 images"):
        mean_auroc_difference(good, ScoredSets(np.arange(3.0), {"near": two}))
