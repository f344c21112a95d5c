"""Attack: a calibration whose bank is named as a path out of its folder, to a file that would do."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


def test_a_bank_outside_its_folder_is_refused(
    fused: Path, bank: Path, change_fusion: Rewrite, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for name in [
        "../outside.npz",
        "../../outside.npz",
        "..",
        "a/../../outside.npz",
        "{root}/outside.npz",
        "..\\outside.npz",
        ".hidden.npz",
        "",
        "bank.npz\n",
        "bank\x00.npz",
        "x" * 101,
    ]:
        with subtests.test(name=name), undone(fused):
            shutil.copy(bank, fused / "outside.npz")
            shutil.copy(bank, fused.parent / "outside.npz")
            change_fusion(lambda fusion: fusion["bank"].update(file=name.format(root=fused)))
            text = refusal()
            assert "calibration.json is invalid: fusion.bank.file" in text
            assert text.endswith("calibrate again.")
