"""Per-class thresholds: all promises hold at once in simulation, and mixing loses the one that it is said to lose."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from draws import at_most
from hypothesis import given
from hypothesis import strategies as st

from diffood.calibration.promises.per_class import (
    FallbackClass,
    PerClassThresholds,
    confidence_per_promise,
    fit_per_class,
)
from diffood.calibration.promises.thresholds import Method, conformal_required, fit_threshold, pac_required
from diffood.errors import CalibrationError, UsageError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DRAWS = 2000
ALPHA, DELTA = 0.05, 0.1


@dataclass(frozen=True)
class Population:
    """InD images: class k has the share shares[k] and scores uniform in [starts[k], starts[k] + 1]."""

    shares: FloatArray
    starts: FloatArray

    def draw(self, generator: np.random.Generator, n: int) -> tuple[FloatArray, IntArray]:
        classes = generator.choice(self.shares.size, n, p=self.shares)
        return self.starts[classes] + generator.random(n), classes

    def rates(self, values: FloatArray | float) -> FloatArray:
        """Exact false-alarm rate of each class at its threshold."""
        return np.clip(self.starts + 1 - values, 0, 1)

    def overall(self, values: FloatArray | float) -> float:
        return float(self.shares @ self.rates(values))


COMMON_AND_RARE = Population(np.array([0.5, 0.3, 0.17, 0.03]), np.array([0.0, 0.4, -0.2, 0.3]))
RARE_AND_LOUD = Population(np.array([0.94, 0.06]), np.array([0.0, 5.0]))


def simulate(population: Population, n: int, method: Method) -> list[PerClassThresholds]:
    generator = np.random.default_rng(20261130)
    count = population.shares.size
    return [fit_per_class(*population.draw(generator, n), count, ALPHA, 1 - DELTA, method) for _ in range(DRAWS)]


def test_all_pac_promises_hold_at_once(subtests: pytest.Subtests) -> None:
    for n in [250, 700]:
        with subtests.test(n=n):
            broken, broken_by_class, owned = 0, np.zeros(4), np.zeros(4)
            for fitted in simulate(COMMON_AND_RARE, n, "pac"):
                own = np.array([threshold is not None for threshold in fitted.own])
                above = own & (COMMON_AND_RARE.rates(fitted.values) > ALPHA)
                lost = COMMON_AND_RARE.overall(fitted.overall.value) > ALPHA
                lost |= COMMON_AND_RARE.overall(fitted.values) > fitted.overall_bound
                broken += bool(above.any() or lost)
                broken_by_class += above
                owned += own
            assert at_most(broken, DRAWS, DELTA)
            # each class at its part of delta, among the draws in which it has its own threshold
            for failures, times in zip(broken_by_class.astype(int), owned.astype(int), strict=True):
                if times:
                    assert at_most(failures, times, DELTA / 5)
            assert owned[3] == 0
            assert owned[0] == DRAWS


def test_conformal_is_right_on_average_in_each_class_with_its_own() -> None:
    draws = simulate(COMMON_AND_RARE, 300, "conformal")
    for k in range(4):
        rates, bounds = [], []
        for fitted in draws:
            own = fitted.own[k]
            if own is not None:
                rates.append(COMMON_AND_RARE.rates(own.value)[k])
                bounds.append(own.bound)
        assert max(bounds, default=0) <= ALPHA
        if len(rates) > 100:
            assert abs(np.mean(rates) - np.mean(bounds)) < 4 * np.std(rates) / math.sqrt(len(rates))


def test_without_fallback_all_images_together_keep_alpha() -> None:
    population = Population(np.array([0.6, 0.4]), np.array([0.0, 0.5]))
    rates = []
    for fitted in simulate(population, 300, "pac"):
        assert not fitted.fell_back
        assert fitted.overall_bound <= ALPHA
        rates.append(population.overall(fitted.values))
    above = int(np.count_nonzero(np.array(rates) > ALPHA))
    assert at_most(above, DRAWS, DELTA)


@pytest.mark.parametrize("method", ["pac", "conformal"])
def test_mixing_loses_alpha_for_all_images_and_keeps_the_bound_that_is_stated(method: Method) -> None:
    # the rare class has the highest scores and takes all alarms of tau; the other class has as many of its own again
    rates, bounds, class_rates = [], [], []
    n = 700 if method == "pac" else 250
    population = RARE_AND_LOUD
    if method == "conformal":
        # too rare for a conformal threshold of its own, which needs 19
        population = Population(np.array([0.96, 0.04]), np.array([0.0, 5.0]))
    for fitted in simulate(population, n, method):
        if not fitted.fell_back:
            continue
        rates.append(population.overall(fitted.values))
        bounds.append(fitted.overall_bound)
        class_rates.append(population.rates(fitted.values)[1])
    assert len(rates) > 0.99 * DRAWS
    assert np.mean(rates) > ALPHA
    assert np.mean(class_rates) > 0.5
    assert ALPHA < max(bounds) <= 2 * ALPHA
    if method == "pac":
        above = int(np.count_nonzero(np.array(rates) > bounds))
        assert at_most(above, DRAWS, DELTA)
    else:
        assert np.mean(rates) <= np.mean(bounds)


def test_classes_that_fall_back_are_named_with_the_number_needed() -> None:
    confidence_of_each = 1 - DELTA / 4
    needed = pac_required(ALPHA, DELTA / 4)
    classes = np.repeat([0, 2], [needed, needed - 1])
    scores = np.arange(classes.size, dtype=np.float64)
    fitted = fit_per_class(scores, classes, 3, ALPHA, 1 - DELTA, "pac")
    assert fitted.fell_back == (FallbackClass(1, 0, needed), FallbackClass(2, needed - 1, needed))
    assert fitted.overall == fit_threshold(scores, ALPHA, confidence_of_each, "pac")
    assert fitted.own[0] == fit_threshold(scores[:needed], ALPHA, confidence_of_each, "pac")
    assert fitted.own[1:] == (None, None)
    np.testing.assert_array_equal(fitted.values, [needed - 1, fitted.overall.value, fitted.overall.value])
    assert fitted.overall_bound == fitted.own[0].bound + fitted.overall.bound
    assert (fitted.alpha, fitted.delta) == (ALPHA, DELTA)


@given(count=st.integers(1, 400))
def test_the_number_needed_is_enough(count: int) -> None:
    needed = pac_required(ALPHA, DELTA / (count + 1))
    fitted = fit_per_class(np.arange(float(needed)), np.zeros(needed, np.int64), count, ALPHA, 1 - DELTA, "pac")
    assert fitted.own[0] is not None


def test_where_all_classes_fall_back_the_promise_is_that_of_the_plain_threshold() -> None:
    needed = conformal_required(ALPHA)
    classes = np.arange(2 * needed - 2) % 2
    fitted = fit_per_class(np.arange(classes.size, dtype=np.float64), classes, 2, ALPHA, 1 - DELTA, "conformal")
    assert [row.count for row in fitted.fell_back] == [needed - 1, needed - 1]
    assert (fitted.overall_bound, fitted.delta) == (fitted.overall.bound, None)


def test_unusable_arguments_are_refused_by_name() -> None:
    scores, classes = np.arange(200.0), np.zeros(200, np.int64)
    with pytest.raises(UsageError, match="'quantile' has none"):
        fit_per_class(scores, classes, 2, ALPHA, 0.9, "quantile")
    with pytest.raises(UsageError, match="confidence is 95"):
        fit_per_class(scores, classes, 2, ALPHA, 95, "pac")
    with pytest.raises(UsageError, match="Predicted class 2 does not exist; 2 classes are numbered 0 to 1"):
        fit_per_class(scores, classes + 2, 2, ALPHA, 0.9, "pac")
    with pytest.raises(UsageError, match=r"Predicted classes have shape \[3\]"):
        fit_per_class(scores, classes[:3], 2, ALPHA, 0.9, "pac")
    with pytest.raises(CalibrationError, match="Too few calibration images: 20 given"):
        fit_per_class(scores[:20], classes[:20], 2, ALPHA, 0.9, "pac")


def test_each_promise_gets_its_share_of_the_risk() -> None:
    for confidence, count, each in [(0.95, None, 0.95), (0.95, 4, 0.99), (0.3, 6, 0.9), (0.9, 0, 0.9)]:
        assert confidence_per_promise(confidence, count) == each, (confidence, count)
