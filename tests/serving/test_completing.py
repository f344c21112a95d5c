"""Columns that depend on the run: a stream that is resumed selects what an undisturbed one would have."""

from dataclasses import replace

from made_up import calibration_of
from written import ROWS

from diffood.runtime.method.discoveries import OnlineSelection
from diffood.serving.completing import RowCompletion, describe_limit

P_VALUES = (0.001, 0.7, 0.004, 0.002, 0.9, 0.02, 0.0001, 0.3, 0.01)


def test_a_resumed_stream_selects_as_an_undisturbed_one() -> None:
    rows = [replace(ROWS[0], id=str(place), p_value=value) for place, value in enumerate(P_VALUES)] + [ROWS[2]]
    whole = RowCompletion("holds", OnlineSelection(0.3))
    expected = [whole.complete(row) for row in rows]
    assert {row.selected for row in expected} == {True, False, None}
    assert [row.certificate for row in expected[-2:]] == ["holds", ""]  # the last was refused
    for split in range(len(rows)):
        resumed = RowCompletion("holds", OnlineSelection(0.3))
        resumed.begin([*expected[:split], None])  # None: damaged, and made again
        assert [resumed.complete(row) for row in rows[split:]] == expected[split:]


def test_a_calibration_too_small_to_select_anything_is_told() -> None:
    calibration = calibration_of([float(score) for score in range(99)], 90.0)
    fresh, spent = OnlineSelection(0.1), OnlineSelection(0.1)
    for _ in range(50):
        spent.select(1.0)
    assert "below the smallest p-value of 99 calibration images, 0.01" in describe_limit(calibration, 0.1, 9, spent)
    assert describe_limit(calibration, 0.1, 9, fresh) == ""
    assert describe_limit(calibration, 0.1, 10, None) == ""
    assert "at least 10 of 100 images must have the smallest p-value, 0.01" in describe_limit(
        calibration, 0.1, 100, None
    )
