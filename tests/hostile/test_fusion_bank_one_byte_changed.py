"""Attack: the bank of a fusion is changed, cut short or made longer, so that other images look near."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:], "was changed after the calibration"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "was changed after the calibration"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 0x80]), "was changed after the calibration"),
        (lambda data: data[:-1], "was changed after the calibration"),
        (lambda data: b"", "was changed after the calibration"),
        (lambda data: data + b"\0", "bytes where at most"),
    ],
    ids=["a feature", "first byte", "last byte", "cut", "emptied", "longer"],
)
def test_a_changed_bank_is_refused(
    bank: Path, refusal: Callable[[], str], change: Callable[[bytes], bytes], message: str
) -> None:
    bank.write_bytes(change(bank.read_bytes()))
    text = refusal()
    assert str(bank) in text
    assert message in text
    assert "calibrate again: `diffood calibrate " in text


@pytest.mark.skipif(os.name != "posix", reason="sparse files as POSIX has them")
def test_a_bank_grown_to_a_terabyte_is_refused_unread(bank: Path, refusal: Callable[[], str]) -> None:
    os.truncate(bank, 2**40)
    assert f"{2**40} bytes where at most" in refusal()
