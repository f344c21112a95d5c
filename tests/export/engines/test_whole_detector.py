"""TensorRT-RTX builds the whole detector, with the answer a calibration adds, without a GPU. For runtimes not ours."""

from pathlib import Path

import pytest
from engine_building import NEEDS_TENSORRT_RTX, PROFILE

from diffood.export.engines.build import build_plan
from diffood.export.engines.worker import BuildJob
from diffood.runtime.assembly.detector import build_detector
from diffood.runtime.assembly.recipe import make_recipe
from diffood.runtime.bundle.bundle import Bundle

pytestmark = [NEEDS_TENSORRT_RTX, pytest.mark.slow]


@pytest.mark.parametrize("plan", ["default", "reference"])
def test_the_whole_detector_becomes_an_engine(small_bundle: Bundle, tmp_path: Path, plan: str) -> None:
    file, engine = tmp_path / "detector.onnx", tmp_path / "detector.plan"
    file.write_bytes(build_detector(make_recipe(small_bundle, small_bundle.plan(plan), "fp32"), None))
    job = BuildJob(library="tensorrt-rtx", name=plan, plan=engine, compute_capability="8.6", profile=PROFILE)
    with file.open("rb") as onnx:
        build_plan(job, onnx, lambda _: None)
    assert engine.stat().st_size > 100_000
