"""Attack: the bank of a fusion, or the folder it lies in, is a link to a place outside; or the bank is a FIFO."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs as POSIX has them")


def test_a_link_to_the_same_bytes_outside_is_refused(bank: Path, tmp_path: Path, refusal: Callable[[], str]) -> None:
    bank.rename(tmp_path / "outside.npz")
    bank.symlink_to(tmp_path / "outside.npz")
    assert f"{bank} cannot be opened" in refusal()


def test_a_link_to_an_endless_device_is_refused(bank: Path, refusal: Callable[[], str]) -> None:
    bank.unlink()
    bank.symlink_to("/dev/zero")
    assert f"{bank} cannot be opened" in refusal()


def test_a_folder_that_is_a_link_is_refused(bank: Path, tmp_path: Path, refusal: Callable[[], str]) -> None:
    outside = bank.parent.rename(tmp_path / "outside")
    bank.parent.symlink_to(outside)
    assert "is a link or not a folder" in refusal()


def test_a_fifo_is_refused_and_not_waited_for(bank: Path, refusal: Callable[[], str]) -> None:
    bank.unlink()
    os.mkfifo(bank)
    assert f"{bank} is not a regular file" in refusal()
