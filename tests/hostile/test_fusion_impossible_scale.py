"""Attack: a witness of impossible mean, deviation, power or weight, so that it drowns the others or is never heard."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


def test_what_is_no_number_is_refused(
    fused: Path, change_fusion: Rewrite, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for name, value in itertools.product(
        ["center", "scale", "power", "center_bent", "scale_bent", "weight"],
        [None, "wide", [1.0]],
    ):
        with subtests.test(name=name, value=value), undone(fused):
            change_fusion(lambda fusion: fusion["witnesses"][1].update({name: value}))
            assert f"calibration.json is invalid: fusion.witnesses.1.{name}" in refusal()
    for name, value in itertools.product(("center", "weight"), (float("nan"), float("inf"), float("-inf"))):
        with subtests.test(name=name, value=value), undone(fused):
            change_fusion(lambda fusion: fusion["witnesses"][1].update({name: value}))
            assert "calibration.json is invalid: it is not JSON: " in refusal()


def test_a_number_out_of_its_range_is_refused(
    fused: Path, change_fusion: Rewrite, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for name, value in [
        *[(name, value) for name in ("scale", "scale_bent") for value in (0.0, -0.0, -1.0)],
        *[("power", value) for value in (-0.1, 2.1, 1e300)],
        *[("weight", value) for value in (-0.1, 1.1)],
    ]:
        with subtests.test(name=name, value=value), undone(fused):
            change_fusion(lambda fusion: fusion["witnesses"][0].update({name: value}))
            assert f"calibration.json is invalid: fusion.witnesses.0.{name}" in refusal()


def test_weights_that_are_not_one_together_are_refused(
    fused: Path, change_fusion: Rewrite, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for weights in [(0.0, 0.0), (1.0, 1.0), (0.5, 0.4)]:
        with subtests.test(weights=weights), undone(fused):

            def change(fusion: dict[str, Any]) -> None:
                for witness, weight in zip(fusion["witnesses"], weights, strict=True):
                    witness["weight"] = weight

            change_fusion(change)
            assert "the weights of the witnesses are not 1 together" in refusal()
