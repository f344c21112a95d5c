"""Attack: a bundle's file is changed before it becomes a Triton model; nothing of it reaches the model repository."""

from collections.abc import Callable
from pathlib import Path

import pytest
from attacks import undone
from planted_engine import plant_engine

from diffood.errors import BundleError
from diffood.serving.triton.config import TritonSettings
from diffood.serving.triton.native import NativeSettings, write_native_model
from diffood.serving.triton.python_backend import write_decoding_model
from diffood.serving.triton.repository import ModelPlace

Change = Callable[[Path, Path], None]  # of the bundle's folder and of its one bank
SETTINGS = TritonSettings(batch=8, threads=1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.replace(path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away"))


def test_a_changed_bundle_is_not_copied(fused: Path, bank: Path, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for case, (change, message) in {
        "graph": (lambda bundle, bank: flip(bundle / "classify.onnx"), "was changed after export"),
        "golden values": (lambda bundle, bank: flip(bundle / "golden.npz"), "was changed after export"),
        "bank": (lambda bundle, bank: flip(bank), "was changed after the calibration"),
        "linked bank": (lambda bundle, bank: link(bank), "cannot be opened"),
        "linked calibration": (lambda bundle, bank: link(bundle / "calibration.json"), "cannot be opened"),
        "parity": (lambda bundle, bank: (bundle / "parity.json").write_text("{}]"), "is invalid"),
        "engine": (lambda bundle, bank: flip(plant_engine(bundle) / "stage1.plan"), "was changed after it was built"),
    }.items():
        with subtests.test(case=case), undone(fused):
            change(fused, bank)
            with pytest.raises(BundleError, match=message):
                write_decoding_model(fused, ModelPlace(tmp_path / "models"), SETTINGS)
            assert not (tmp_path / "models").exists()


def test_engines_go_where_they_are_run(fused: Path, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for backend, copied in [("auto", True), ("tensorrt-rtx", True), ("tensorrt", False), ("onnxruntime-cpu", False)]:
        with subtests.test(backend=backend, copied=copied), undone(fused):
            engine = plant_engine(fused)
            model = write_decoding_model(
                fused, ModelPlace(tmp_path / backend), TritonSettings.model_validate({"backend": backend})
            )
            place = model / "1" / "bundle" / engine.relative_to(fused)
            assert place.exists() is copied
            assert not copied or {p.name: p.read_bytes() for p in engine.iterdir()} == {
                p.name: p.read_bytes() for p in place.iterdir()
            }


def test_a_changed_detector_file_is_not_copied(fused: Path, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for case, (change, message) in {
        "detector": (lambda bundle: flip(bundle / "detector.onnx"), "was changed after it was written"),
        "linked detector": (lambda bundle: link(bundle / "detector.onnx"), "cannot be opened"),
        "record": (lambda bundle: (bundle / "detector.json").write_text("{}]"), "is invalid"),
        "calibration": (lambda bundle: (bundle / "calibration.json").write_text("{}]"), "is invalid"),
        "graph": (lambda bundle: flip(bundle / "classify.onnx"), "was changed after export"),
    }.items():
        with subtests.test(case=case), undone(fused):
            change(fused)
            with pytest.raises(BundleError, match=message):
                write_native_model(fused, ModelPlace(tmp_path / "models"), NativeSettings())
            assert not (tmp_path / "models").exists()
