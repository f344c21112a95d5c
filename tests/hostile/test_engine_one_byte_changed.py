"""Attack: a plan file is changed, cut short or made longer after it was built. A plan is code: none is returned."""

import os
from pathlib import Path

import pytest
from attacks import undone
from planted_engine import plant_engine

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import list_engines, read_plan


def test_a_changed_plan_is_refused(victim: Path, subtests: pytest.Subtests) -> None:
    for case, (change, message) in {
        "first byte": (lambda data: bytes([data[0] ^ 1]) + data[1:], "was changed after it was built"),
        "last byte": (lambda data: data[:-1] + bytes([data[-1] ^ 0x80]), "was changed after it was built"),
        "cut": (lambda data: data[:-1], "was changed after it was built"),
        "emptied": (lambda data: b"", "was changed after it was built"),
        "longer": (lambda data: data + b"\0", "bytes where at most"),
        "reversed": (lambda data: data[::-1], "was changed after it was built"),
    }.items():
        with subtests.test(case=case), undone(victim):
            folder = plant_engine(victim)
            (engine,) = list_engines(open_bundle(victim))
            data = read_plan(engine, engine.record.stages[0])
            (folder / "stage1.plan").write_bytes(change(data))
            with pytest.raises(BundleError, match=f"{message}|was changed while the bundle was in use"):
                read_plan(engine, engine.record.stages[0])
            (engine,) = list_engines(open_bundle(victim))
            with pytest.raises(BundleError, match=message):
                read_plan(engine, engine.record.stages[0])


@pytest.mark.skipif(os.name != "posix", reason="sparse files as POSIX has them")
def test_a_plan_grown_to_a_terabyte_is_refused_unread(victim: Path) -> None:
    folder = plant_engine(victim)
    (engine,) = list_engines(open_bundle(victim))
    os.truncate(folder / "stage1.plan", 2**40)
    with pytest.raises(BundleError, match=rf"{2**40} bytes where at most"):
        read_plan(engine, engine.record.stages[0])
