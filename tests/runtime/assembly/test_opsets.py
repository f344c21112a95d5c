"""Assembled graphs in every opset that `export --opset` offers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from halved_graphs import reseal
from stage_graphs import run_stage

from diffood.export.request import OPSET
from diffood.runtime.assembly.detector import build_detector
from diffood.runtime.assembly.recipe import make_recipe
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.golden import observe_reference
from diffood.runtime.onnx.parts import OLDEST_OPSET

Pixels = np.ndarray


@pytest.mark.parametrize("opset", range(OLDEST_OPSET, OPSET))
def test_stages_and_the_detector_give_the_same_in_every_opset(
    small_bundle: Bundle, clothes: Pixels, tmp_path: Path, opset: int
) -> None:
    """The parts are those of the newest opset, by another number: none of their operators differs between these."""
    onnx = pytest.importorskip("onnx")
    path = Path(shutil.copytree(small_bundle.path, tmp_path / "bundle"))
    for file in path.glob("*.onnx"):
        model = onnx.load(file)
        model.opset_import[0].version = opset
        onnx.save(model, file)
    reseal(path, lambda _: None)
    older, pixels = open_bundle(path), clothes[:3, None]
    for name in ("default", "reference"):  # steps written out, in stages; a loop
        plan = older.plan(name)
        wanted, found = (observe_reference(bundle, plan, pixels) for bundle in (small_bundle, older))
        assert all(np.array_equal(found[output], wanted[output]) for output in wanted)
    whole = run_stage(build_detector(make_recipe(older, older.plan(), "fp32"), None), image=pixels)
    assert whole["jump"] == pytest.approx(observe_reference(older, older.plan(), pixels)["jump"].mean((1, 2)), rel=1e-5)
