"""Noise pool-1: standard normal, decided by the pixels alone, different for other pixels and other repeats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from diffood.runtime.method.noise import OFFSETS, NoisePool, make_pool

SHAPE = (2, 5, 7)
SIZE = 70


@pytest.fixture(scope="module")
def pool() -> NoisePool:
    return make_pool(seed=0, repeats=4, pixels=SIZE, size=SIZE)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def test_the_pool_is_standard_normal(pool: NoisePool) -> None:
    values = pool.values.astype(np.float64)
    count = len(values)
    assert count == OFFSETS + SIZE
    # Standard errors of the moments of `count` normal values, four of them; the seed is fixed.
    assert abs(values.mean()) < 4 * np.sqrt(1 / count)
    assert abs(values.var() - 1) < 4 * np.sqrt(2 / count)
    assert abs(stats.skew(values)) < 4 * np.sqrt(6 / count)
    assert abs(stats.kurtosis(values)) < 4 * np.sqrt(24 / count)
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert np.abs(values).max() > 4.5


def test_values_of_one_image_are_independent(pool: NoisePool) -> None:
    """No correlation of values, nor of their squares, at any distance that pairs or rows could leave."""
    values = pool.values.astype(np.float64)
    for distance in (1, 2, 3, 7, 28, 35, 784):
        one, other = values[:-distance], values[distance:]
        for left, right in ((one, other), (one**2, other**2)):
            assert abs(np.corrcoef(left, right)[0, 1]) < 4 / np.sqrt(len(one)), distance


def test_float16_represents_every_value(pool: NoisePool) -> None:
    np.testing.assert_array_equal(pool.values.astype(np.float16).astype(np.float32), pool.values)


@given(st.integers(0, SIZE - 1), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_another_value_of_one_pixel_gives_another_offset(pool: NoisePool, place: int, value: int, seed: int) -> None:
    one = pictures(1, seed).reshape(1, -1)
    other = one.copy()
    other[0, place] = value
    same = (pool.offsets(one) == pool.offsets(other)).all()
    assert same == (value == one[0, place])


def test_repeats_and_seeds_and_images_have_noise_of_their_own(pool: NoisePool) -> None:
    image = pictures(2)
    drawn = pool.draw(image, SHAPE).reshape(-1, SIZE)
    drawn = np.concatenate([drawn, make_pool(1, 1, SIZE, SIZE).draw(image, SHAPE).reshape(-1, SIZE)])
    assert len(np.unique(drawn, axis=0)) == len(drawn) == 10


def test_noise_of_an_image_does_not_depend_on_the_others(pool: NoisePool) -> None:
    images = pictures(9)
    together = pool.draw(images, SHAPE)
    for row in (0, 4, 8):
        np.testing.assert_array_equal(pool.draw(images[[row]], SHAPE)[:, 0], together[:, row])
    np.testing.assert_array_equal(pool.draw(images[::-1], SHAPE)[:, ::-1], together)


def test_offsets_are_spread_over_the_whole_pool() -> None:
    """Of images as small as ours; a window in a thousandth of the pool would make noise of many images alike."""
    pool = make_pool(0, 1, 784, 784)
    offsets = pool.offsets(np.random.default_rng(0).integers(0, 256, (4000, 784), dtype=np.uint8))
    assert stats.kstest(offsets.ravel() / OFFSETS, "uniform").pvalue > 1e-3


def test_a_smaller_pool_is_the_beginning_of_a_larger_one(pool: NoisePool) -> None:
    smaller = make_pool(0, 2, SIZE, 31)
    np.testing.assert_array_equal(smaller.values, pool.values[: OFFSETS + 31])
    np.testing.assert_array_equal(smaller.factors, pool.factors[:2])


def test_factors_are_odd_and_below_the_number_of_offsets(pool: NoisePool) -> None:
    assert (pool.factors % 2 == 1).all()
    assert pool.factors.min() >= 1
    assert OFFSETS // 2 < pool.factors.max() < OFFSETS


def test_the_rule_is_pinned() -> None:
    """Other values are another rule, under which no calibration holds."""
    pool = make_pool(seed=7, repeats=2, pixels=4, size=4)
    drawn = pool.draw(np.array([[[0, 1], [128, 255]]], np.uint8)[:, None], (1, 2, 2))
    assert pool.factors.tolist() == PINNED_FACTORS
    np.testing.assert_array_equal(drawn.reshape(2, 4), np.array(PINNED_NOISE, np.float32))


PINNED_FACTORS = [[2419, 681409, 9815, 287141], [687065, 325185, 792963, 620989]]
PINNED_NOISE = [
    [-0.6650390625, -0.74951171875, -1.6142578125, 0.302978515625],
    [1.7607421875, 0.17529296875, -0.94287109375, -1.3203125],
]
