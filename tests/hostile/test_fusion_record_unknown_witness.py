"""Attack: a fusion of witnesses that there are none of, that count twice, or that are not the plan's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]

USUAL = {"center": 0.0, "scale": 1.0, "weight": 0.0}


def leave_one(fusion: dict[str, Any]) -> None:
    fusion["witnesses"] = [{**fusion["witnesses"][1], "weight": 1.0}]


def test_a_fusion_of_other_witnesses_is_refused(
    fused: Path, change_fusion: Rewrite, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for change, message in [
        (lambda fusion: fusion["witnesses"][0].update(name="__class__"), "fusion.witnesses.0.name"),
        (lambda fusion: fusion["witnesses"][0].update(name="Jump"), "fusion.witnesses.0.name"),
        (lambda fusion: fusion["witnesses"][0].update(name=""), "fusion.witnesses.0.name"),
        (lambda fusion: fusion["witnesses"][0].update(name=["jump"]), "fusion.witnesses.0.name"),
        (lambda fusion: fusion["witnesses"][0].update(name="msp"), "The fusion combines msp, margin by tail"),
        (
            lambda fusion: fusion["witnesses"].append({"name": "jump", **USUAL}),
            "The fusion combines jump, margin, jump by tail",
        ),
        (lambda fusion: fusion["witnesses"].reverse(), "The fusion combines margin, jump by tail"),
        (lambda fusion: fusion["witnesses"].pop(0), "the weights of the witnesses are not 1 together"),
        (leave_one, "The fusion combines margin by tail"),
        (lambda fusion: fusion["witnesses"].clear(), "fusion.witnesses"),
        (lambda fusion: fusion.update(combine="max"), "fusion.combine"),
        (lambda fusion: fusion.update(combine="sum"), "The fusion combines jump, margin by sum"),
        (lambda fusion: fusion.update(bank=None), "a bank goes with margin"),
        (lambda fusion: fusion.update(note="x"), "fusion.note"),
        (lambda fusion: fusion.update({"n\x1b[31m": 1}), "fusion.n\\x1b[31m"),
    ]:
        with subtests.test(change=change, message=message), undone(fused):
            change_fusion(change)
            text = refusal()
            assert "calibration.json is invalid" in text
            assert message in text
