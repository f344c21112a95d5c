"""Engines of graphs whose weights lie in a file of their own: built from hashed copies, bound to graph and weights."""

from pathlib import Path

import pytest
from engine_building import NEEDS_TENSORRT_RTX, build, keep_graphs
from outside_weights import move_outside, seal

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import EngineHost, find_engine, list_engines

pytestmark = NEEDS_TENSORRT_RTX


@pytest.fixture
def large(small_bundle_copy: Path) -> Path:
    """A bundle of the classifier alone, its weights outside."""
    move_outside(small_bundle_copy, "classify")
    keep_graphs(small_bundle_copy, "classify")
    return small_bundle_copy


def test_an_engine_holds_the_weights_and_is_bound_to_them(large: Path) -> None:
    (folder,) = build(large, "sm86")
    assert sorted(path.name for path in folder.iterdir()) == ["classify.plan", "engine.json"]  # no copies are left
    bundle = open_bundle(large)
    (engine,) = list_engines(bundle)
    (plan,) = engine.record.plans
    assert plan.size > (large / "classify.weights").stat().st_size
    assert plan.onnx_sha256 == bundle.sha256(bundle.graph("classify")) != bundle.manifest.files["classify.onnx"].sha256
    machine = EngineHost("tensorrt-rtx", engine.record.library_version, "8.6")
    assert find_engine(bundle, machine, "fp32", 8) == engine
    data = bytearray((large / "classify.weights").read_bytes())
    data[0] ^= 1
    (large / "classify.weights").write_bytes(data)
    seal(large, "classify.weights")
    with pytest.raises(BundleError, match=r"was built from another classify\.onnx than the bundle's"):
        find_engine(open_bundle(large), machine, "fp32", 8)


def test_changed_weights_are_not_built(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffood.export.engines import build as engines

    opened = open_bundle(large)
    monkeypatch.setattr(engines, "open_bundle", lambda _: opened)  # changed after the bundle was opened
    (large / "classify.weights").write_bytes(bytes((large / "classify.weights").stat().st_size))
    with pytest.raises(BundleError, match=r"classify\.weights was changed after export"):
        build(large, "sm86")
    assert not list((large / "engines").iterdir())
