"""Engines of stages whose weights lie in files of their own: built from hashed copies, bound to graphs and weights."""

from pathlib import Path

import pytest
from engine_building import NEEDS_TENSORRT_RTX, TWO_STAGES, build, set_plan
from outside_weights import move_outside, seal
from planted_engine import ask

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import list_engines
from diffood.runtime.sessions.engines import EngineHost, find_engine

pytestmark = NEEDS_TENSORRT_RTX


@pytest.fixture
def large(small_bundle_copy: Path) -> Path:
    """The small bundle, the weights of two graphs outside, and a plan of two stages that need them."""
    for role in ("classify", "step_plain"):
        move_outside(small_bundle_copy, role)
    set_plan(small_bundle_copy, TWO_STAGES)
    return small_bundle_copy


def test_an_engine_holds_the_weights_and_is_bound_to_them(large: Path) -> None:
    (folder,) = build(large, "sm86")
    assert sorted(path.name for path in folder.iterdir()) == [
        "engine.json",
        "stage1.plan",
        "stage2.plan",
    ]  # no copies are left
    bundle = open_bundle(large)
    (engine,) = list_engines(bundle)
    for stage, role in zip(engine.record.stages, ("classify", "step_plain"), strict=True):
        assert stage.size > (large / f"{role}.weights").stat().st_size
    machine = EngineHost("tensorrt-rtx", engine.record.library_version, "8.6")
    assert find_engine(ask(large), machine) == engine
    data = bytearray((large / "step_plain.weights").read_bytes())
    data[0] ^= 1
    (large / "step_plain.weights").write_bytes(data)
    seal(large, "step_plain.weights")
    with pytest.raises(BundleError, match=r"was built from other graphs than the bundle's"):
        find_engine(ask(large), machine)


def test_changed_weights_are_not_built(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffood.export.engines import build as engines

    opened = open_bundle(large)
    monkeypatch.setattr(engines, "open_bundle", lambda *_: opened)  # changed after the bundle was opened
    (large / "classify.weights").write_bytes(bytes((large / "classify.weights").stat().st_size))
    with pytest.raises(BundleError, match=r"classify\.weights was changed after export"):
        build(large, "sm86")
    assert not list((large / "engines").iterdir())
