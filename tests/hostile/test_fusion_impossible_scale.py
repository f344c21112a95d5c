"""Attack: a witness whose deviation or mean is impossible, so that it drowns the others or is never heard."""

from collections.abc import Callable
from typing import Any

import pytest

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


@pytest.mark.parametrize("name", ["center", "scale"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None, "wide", [1.0]])
def test_what_is_no_number_is_refused(
    change_fusion: Rewrite, refusal: Callable[[], str], name: str, value: object
) -> None:
    change_fusion(lambda fusion: fusion["witnesses"][1].update({name: value}))
    assert f"calibration.json does not hold: fusion.witnesses.1.{name}" in refusal()


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0])
def test_a_deviation_of_nought_or_less_is_refused(
    change_fusion: Rewrite, refusal: Callable[[], str], value: float
) -> None:
    change_fusion(lambda fusion: fusion["witnesses"][0].update(scale=value))
    assert "calibration.json does not hold: fusion.witnesses.0.scale" in refusal()
