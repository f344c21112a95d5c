"""TensorRT-RTX builds the whole detector, with the answer a calibration adds, without a GPU. For runtimes not ours."""

from pathlib import Path

import pytest
from engine_building import NEEDS_TENSORRT_RTX, PROFILE

from diffood.calibration.calibrate import calibrate_files
from diffood.export.engines.build import build_plan
from diffood.export.engines.worker import BuildJob
from diffood.runtime.assembly.detector import build_detector
from diffood.runtime.assembly.recipe import make_recipe
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.detectors import read_calibrated_detector
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs

pytestmark = [NEEDS_TENSORRT_RTX, pytest.mark.slow]


def build(model: Path, engine: Path) -> int:
    """Build an engine of a detector file; the bytes that it has."""
    job = BuildJob(library="tensorrt-rtx", name=model.name, plan=engine, compute_capability="8.6", profile=PROFILE)
    with model.open("rb") as onnx:
        build_plan(job, onnx, lambda _: None)
    return engine.stat().st_size


def test_a_calibrated_detector_becomes_an_engine(small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path) -> None:
    bundle = open_bundle(small_bundle_copy)
    detector = Detector.load(bundle, bundle.plan(), batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.1, 0.95, "pac").save()
    assert read_calibrated_detector(bundle, "fp32").plan.stages
    assert build(small_bundle_copy / "detector.onnx", tmp_path / "detector.plan") > 100_000


def test_a_detector_of_many_steps_becomes_an_engine(small_bundle: Bundle, tmp_path: Path) -> None:
    model = tmp_path / "detector.onnx"
    model.write_bytes(build_detector(make_recipe(small_bundle, small_bundle.plan("reference"), "fp32"), None))
    assert build(model, tmp_path / "detector.plan") > 100_000
