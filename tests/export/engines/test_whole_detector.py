"""TensorRT-RTX builds engines of whole stages and of the whole detector, loops among them, without a GPU."""

from pathlib import Path

import pytest
from engine_building import NEEDS_TENSORRT_RTX, PROFILE

from diffood.export.engines.build import build_plan
from diffood.export.engines.worker import BuildJob
from diffood.runtime.assembly.detector import build_detector
from diffood.runtime.assembly.recipe import list_stages, make_recipe
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.bundle.bundle import Bundle

pytestmark = [NEEDS_TENSORRT_RTX, pytest.mark.slow]


@pytest.mark.parametrize("plan", ["default", "reference"])
def test_every_graph_of_a_plan_becomes_an_engine(small_bundle: Bundle, tmp_path: Path, plan: str) -> None:
    chosen = small_bundle.plan(plan)
    recipe = make_recipe(small_bundle, chosen, "fp32")
    graphs = {f"stage{stage.number}": build_stage(recipe, stage) for stage in list_stages(chosen)}
    for name, model in (graphs | {"detector": build_detector(recipe, None)}).items():
        file, engine = tmp_path / f"{name}.onnx", tmp_path / f"{name}.plan"
        file.write_bytes(model)
        job = BuildJob(library="tensorrt-rtx", name=name, plan=engine, compute_capability="8.6", profile=PROFILE)
        with file.open("rb") as onnx:
            build_plan(job, onnx, lambda _: None)
        assert engine.stat().st_size > 100_000, name
