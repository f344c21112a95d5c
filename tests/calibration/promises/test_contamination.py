"""The bounds on a contaminated calibration hold for every choice of wrong images, and are reached."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffood.calibration.promises.contamination import assess_contamination, most_suspicious, usable_shares
from diffood.calibration.promises.thresholds import Method, fit_threshold, images_required
from diffood.errors import CalibrationError, UsageError

FloatArray = npt.NDArray[np.float64]
METHODS: tuple[Method, ...] = ("pac", "conformal", "quantile")
tied_scores = hnp.arrays(np.float64, st.integers(120, 300), elements=st.integers(-30, 30).map(float))


@given(
    scores=tied_scores,
    method=st.sampled_from(METHODS),
    share=st.sampled_from([0.01, 0.05, 0.2]),
    seed=st.integers(0, 10**6),
    used=st.floats(0, 1),
)
def test_the_bounds_hold_for_every_choice_of_wrong_images(
    scores: FloatArray, method: Method, share: float, seed: int, used: float
) -> None:
    (row,) = assess_contamination(scores, 0.1, 0.9, method, (share,))
    wrong = np.random.default_rng(seed).permutation(scores.size)[: round(used * row.removed)]
    clean = fit_threshold(np.delete(scores, wrong), 0.1, 0.9, method).value
    assert row.threshold <= clean <= row.highest_threshold
    assert row.shift <= 0
    assert row.threshold - row.shift == pytest.approx(fit_threshold(scores, 0.1, 0.9, method).value)
    assert row.flagged_now <= row.flagged_refitted <= 0.1


def test_rows_by_hand() -> None:
    # Conformal at 10 %: floor(101 * 0.1) - 1 = 9 of 100 above; floor(96 * 0.1) - 1 = 8 of 95.
    one, five = assess_contamination(np.arange(100.0), 0.1, 0.9, "conformal")
    assert (five.share, five.removed) == (0.05, 5)
    assert (five.threshold, five.shift, five.highest_threshold) == (86.0, -4.0, 91.0)
    assert (five.flagged_now, five.flagged_refitted) == (4 / 95, 8 / 95)
    assert (one.removed, one.threshold) == (1, 89.0)


def test_the_number_removed_is_exact() -> None:
    rows = assess_contamination(np.arange(100.0), 0.1, 0.9, "quantile", (0.07, 0.29, 0.001))
    assert [row.removed for row in rows] == [7, 29, 0]


def test_too_few_left_and_unusable_arguments_are_refused() -> None:
    with pytest.raises(CalibrationError, match="58 given, at least 59 needed"):
        assess_contamination(np.arange(59.0), 0.05, 0.95, "pac", (0.02,))
    with pytest.raises(UsageError, match="share is 5"):
        assess_contamination(np.arange(100.0), 0.05, 0.95, "pac", (5,))
    with pytest.raises(UsageError, match="Calibration scores are empty"):
        most_suspicious(np.array([]), 0)
    with pytest.raises(UsageError, match="k is 4; of 3 images"):
        most_suspicious(np.arange(3.0), 4)


def test_most_suspicious_are_the_highest_in_order() -> None:
    scores = np.array([1.0, 5.0, 3.0, 5.0])
    assert most_suspicious(scores, 3).tolist() == [1, 3, 2]
    assert most_suspicious(scores, 0).tolist() == []


def test_a_usable_share_is_at_least_one_image_and_leaves_enough() -> None:
    expected = {(100, 95): (0.01, 0.05), (100, 96): (0.01,), (99, 50): (0.05,), (100, 100): (), (19, 1): ()}
    assert {given: usable_shares(*given) for given in expected} == expected


@given(n=st.integers(59, 400))
def test_a_usable_share_is_assessed(n: int) -> None:
    shares = usable_shares(n, images_required(0.05, 0.95, "pac"))
    assert [row.share for row in assess_contamination(np.arange(float(n)), 0.05, 0.95, "pac", shares)] == list(shares)
