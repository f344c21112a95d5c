"""Attack: a witness of impossible mean, deviation, power or weight, so that it drowns the others or is never heard."""

from collections.abc import Callable
from typing import Any

import pytest

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


@pytest.mark.parametrize("name", ["center", "scale", "power", "center_bent", "scale_bent", "weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None, "wide", [1.0]])
def test_what_is_no_number_is_refused(
    change_fusion: Rewrite, refusal: Callable[[], str], name: str, value: object
) -> None:
    change_fusion(lambda fusion: fusion["witnesses"][1].update({name: value}))
    assert f"calibration.json is invalid: fusion.witnesses.1.{name}" in refusal()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("scale", "scale_bent") for value in (0.0, -0.0, -1.0)],
        *[("power", value) for value in (-0.1, 2.1, 1e300)],
        *[("weight", value) for value in (-0.1, 1.1)],
    ],
)
def test_a_number_out_of_its_range_is_refused(
    change_fusion: Rewrite, refusal: Callable[[], str], name: str, value: float
) -> None:
    change_fusion(lambda fusion: fusion["witnesses"][0].update({name: value}))
    assert f"calibration.json is invalid: fusion.witnesses.0.{name}" in refusal()


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.4)])
def test_weights_that_are_not_one_together_are_refused(
    change_fusion: Rewrite, refusal: Callable[[], str], weights: tuple[float, float]
) -> None:
    def change(fusion: dict[str, Any]) -> None:
        for witness, weight in zip(fusion["witnesses"], weights, strict=True):
            witness["weight"] = weight

    change_fusion(change)
    assert "the weights of the witnesses are not 1 together" in refusal()
