"""Attack: a plan file is changed, cut short or made longer after it was built. A plan is code: none is returned."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from planted_engine import plant_engine

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import list_engines, read_plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "was changed after it was built"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 0x80]), "was changed after it was built"),
        (lambda data: data[:-1], "was changed after it was built"),
        (lambda data: b"", "was changed after it was built"),
        (lambda data: data + b"\0", "bytes where at most"),
        (lambda data: data[::-1], "was changed after it was built"),
    ],
    ids=["first byte", "last byte", "cut", "emptied", "longer", "reversed"],
)
def test_a_changed_plan_is_refused(bundle_copy: Path, change: Callable[[bytes], bytes], message: str) -> None:
    folder = plant_engine(bundle_copy)
    (engine,) = list_engines(open_bundle(bundle_copy))
    data = read_plan(engine, "classify")
    (folder / "classify.plan").write_bytes(change(data))
    with pytest.raises(BundleError, match=message):
        read_plan(engine, "classify")


@pytest.mark.skipif(os.name != "posix", reason="sparse files as POSIX has them")
def test_a_plan_grown_to_a_terabyte_is_refused_unread(bundle_copy: Path) -> None:
    folder = plant_engine(bundle_copy)
    (engine,) = list_engines(open_bundle(bundle_copy))
    os.truncate(folder / "classify.plan", 2**40)
    with pytest.raises(BundleError, match=rf"{2**40} bytes where at most"):
        read_plan(engine, "classify")
