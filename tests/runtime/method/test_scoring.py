"""Laws of the score functions: tables by hand, and what holds for every pair of vectors."""

import itertools
import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffood.runtime.method.scoring import jump, jumps, softmax_confidence, unit

Norm = Literal["l1", "l2"]
NORMS: tuple[Norm, ...] = ("l1", "l2")
ROUNDING = 1e-12  # some thousand roundings of float64

sizes = st.shared(st.integers(1, 20), key="size")
vectors = sizes.flatmap(
    lambda size: hnp.arrays(
        np.float32, size, elements=st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
    )
)


def test_jump_by_hand(subtests: pytest.Subtests) -> None:
    for before, after, l1, l2 in [
        ([1, 0], [1, 0], 0, 0),
        ([1, 0], [5, 0], 0, 0),
        ([1, 0], [0, 1], 2, math.sqrt(2)),
        ([1, 0], [-1, 0], 2, 2),
        ([3, 4], [4, 3], 0.4, math.sqrt(0.08)),
        ([3, 4], [-3, -4], 2.8, 2),
        ([0, 0], [3, 4], 1.4, 1),  # a zero vector stays zero
        ([0, 0], [0, 0], 0, 0),
        ([1, 1, 1, 1], [-1, -1, -1, -1], 4, 2),
    ]:
        with subtests.test(before=before):
            pair = np.array(before, np.float32), np.array(after, np.float32)
            assert jump(*pair, "l1") == pytest.approx(l1, abs=ROUNDING)
            assert jump(*pair, "l2") == pytest.approx(l2, abs=ROUNDING)


def test_unit_of_zero_is_zero_and_of_others_has_length_one() -> None:
    units = unit(np.array([[0, 0], [3, -4], [1e-5, 0], [1e30, 1e30]], np.float32))
    assert units.dtype == np.float64
    assert units[0].tolist() == [0, 0]
    assert units[1] == pytest.approx([0.6, -0.8])
    assert np.linalg.norm(units[1:], axis=-1) == pytest.approx(1)


def test_origin_and_neighbour_by_hand() -> None:
    origin = np.array([[1, 0]], np.float32)
    denoised = np.array([[[0, 1], [0, -2], [-3, 0]]], np.float32)
    assert jumps(origin, denoised, "l1", "origin").mean(axis=0).tolist() == [2, 2, 2]
    assert jumps(origin, denoised, "l1", "neighbour").mean(axis=0).tolist() == [2, 2, 2]
    assert jumps(origin, denoised, "l2", "origin").mean(axis=0) == pytest.approx([math.sqrt(2), math.sqrt(2), 2])
    assert jumps(origin, denoised, "l2", "neighbour").mean(axis=0) == pytest.approx([math.sqrt(2), 2, math.sqrt(2)])


def test_score_is_the_mean_over_repeats() -> None:
    origin = np.array([[1, 0]], np.float32)
    denoised = np.array([[[1, 0], [0, 1]], [[0, 1], [0, 1]], [[1, 0], [1, 0]], [[1, 0], [-1, 0]]], np.float32)
    assert jumps(origin, denoised, "l1", "origin").mean(axis=0) == pytest.approx([2 / 4, 6 / 4])
    assert jumps(origin, denoised, "l1", "neighbour").mean(axis=0) == pytest.approx([2 / 4, 4 / 4])


def test_each_repeat_has_its_own_origin() -> None:
    origin = np.array([[1, 0], [0, 1]], np.float32)
    denoised = np.array([[[2, 0]], [[0, 3]]], np.float32)
    for compare in ("origin", "neighbour"):
        assert jumps(origin, denoised, "l1", compare).mean(axis=0).tolist() == [0]
    assert jumps(origin[::-1], denoised, "l1", "origin").mean(axis=0).tolist() == [2]


def test_a_number_that_is_none_is_never_hidden_by_the_mean(subtests: pytest.Subtests) -> None:
    for compare, norm in itertools.product(["origin", "neighbour"], NORMS):
        with subtests.test(compare=compare, norm=norm):
            denoised = np.ones((3, 2, 4), np.float32)
            denoised[1, 0, 2] = np.nan
            scores = jumps(np.ones((1, 4), np.float32), denoised, norm, compare).mean(axis=0)
            assert np.isnan(scores.mean())


@pytest.mark.parametrize("norm", NORMS)
@given(before=vectors, after=vectors, scale=st.floats(0.01, 100))
def test_laws_of_jump(
    norm: Norm, before: npt.NDArray[np.float32], after: npt.NDArray[np.float32], scale: float
) -> None:
    found = float(jump(before, after, norm))
    largest = 2 * math.sqrt(len(before)) if norm == "l1" else 2
    assert 0 <= found <= largest + ROUNDING
    assert float(jump(after, before, norm)) == found
    assert float(jump(before, before, norm)) == 0
    wide = before.astype(np.float64) * scale
    assert float(jump(wide, after, norm)) == pytest.approx(found, abs=ROUNDING)


@given(before=vectors, after=vectors)
def test_l1_is_at_least_l2_and_at_most_the_root_of_d_times_it(
    before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]
) -> None:
    l1, l2 = float(jump(before, after, "l1")), float(jump(before, after, "l2"))
    assert l2 <= l1 + ROUNDING
    assert l1 <= math.sqrt(len(before)) * l2 + ROUNDING


def test_confidence_by_hand(subtests: pytest.Subtests) -> None:
    for logits, expected in [
        ([0, 0], 1 / 2),
        ([0, 0, 0, 0], 1 / 4),
        ([math.log(3), 0], 3 / 4),
        ([1e4, 0], 1),
        ([-1e4, -1e4], 1 / 2),
    ]:
        with subtests.test(logits=logits, expected=expected):
            assert softmax_confidence(np.array([logits], np.float32)) == pytest.approx([expected], rel=1e-6)
