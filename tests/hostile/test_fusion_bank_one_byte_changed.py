"""Attack: the bank of a fusion is changed, cut short or made longer, so that other images look near."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks import undone


def test_a_changed_bank_is_refused(
    fused: Path, bank: Path, refusal: Callable[[], str], subtests: pytest.Subtests
) -> None:
    for case, (change, message) in {
        "a feature": (
            lambda data: data[:600] + bytes([data[600] ^ 1]) + data[601:],
            "was changed after the calibration",
        ),
        "first byte": (lambda data: bytes([data[0] ^ 1]) + data[1:], "was changed after the calibration"),
        "last byte": (lambda data: data[:-1] + bytes([data[-1] ^ 0x80]), "was changed after the calibration"),
        "cut": (lambda data: data[:-1], "was changed after the calibration"),
        "emptied": (lambda data: b"", "was changed after the calibration"),
        "longer": (lambda data: data + b"\0", "bytes where at most"),
    }.items():
        with subtests.test(case=case), undone(fused):
            bank.write_bytes(change(bank.read_bytes()))
            text = refusal()
            assert str(bank) in text
            assert message in text
            assert "calibrate again: `diffood calibrate " in text


@pytest.mark.skipif(os.name != "posix", reason="sparse files as POSIX has them")
def test_a_bank_grown_to_a_terabyte_is_refused_unread(bank: Path, refusal: Callable[[], str]) -> None:
    os.truncate(bank, 2**40)
    assert f"{2**40} bytes where at most" in refusal()
