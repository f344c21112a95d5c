"""Large graphs, whose weights lie in a file of their own: the same outputs, one identity with their weights."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from outside_weights import move_outside, seal

from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.graphs import read_graph, read_model
from diffood.runtime.detector import Detector

QUICK = {"start_times": (120,), "stride": 60, "repeats": 1}
ROLES = ("classify", "step_plain", "step_guided")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle) -> Path:
    """The small bundle with its large weights outside; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("large") / "bundle"))
    for role in ROLES:
        move_outside(path, role)
    return path


def test_weights_outside_give_the_same_scores(
    large: Path, small_bundle: Bundle, clothes: npt.NDArray[np.uint8], subtests: pytest.Subtests
) -> None:
    for plan in ["plain", "reference"]:
        with subtests.test(plan=plan):
            outside, inside = (
                Detector.load(bundle, bundle.plan(plan).changed(QUICK), batch=4, threads=1).score_pixels(
                    clothes[:3, None]
                )
                for bundle in (open_bundle(large), small_bundle)
            )
            # ONNX Runtime moves the weights of a convolution to another layout where it holds them itself
            np.testing.assert_allclose(outside.score, inside.score, rtol=1e-5)


def test_the_onnx_file_alone_holds_none_of_them(large: Path, small_bundle: Bundle) -> None:
    bundle = open_bundle(large)
    for role in ROLES:
        _, tensors = read_model(bundle, bundle.graph(role))
        saved = (small_bundle.path / f"{role}.onnx").stat().st_size - (large / f"{role}.onnx").stat().st_size
        assert saved > 0.9 * sum(tensor.length for tensor in tensors), role  # their places take a few bytes


def test_every_weight_is_a_view_of_the_hashed_bytes(large: Path) -> None:
    bundle = open_bundle(large)
    graph = read_graph(bundle, "step_plain", "fp32")
    _, tensors = read_model(bundle, bundle.graph("step_plain"))
    data = (large / "step_plain.weights").read_bytes()
    for tensor in tensors:
        weight = graph.outside[tensor.name]
        assert weight.tobytes() == data[tensor.offset : tensor.offset + tensor.length]
        assert weight.ctypes.data % 64 == 0
        assert weight.base is not None


def test_a_graphs_identity_changes_with_its_weights(large: Path, small_bundle: Bundle, tmp_path: Path) -> None:
    other = Path(shutil.copytree(large, tmp_path / "other"))
    data = bytearray((other / "classify.weights").read_bytes())
    data[0] ^= 1
    (other / "classify.weights").write_bytes(data)
    seal(other, "classify.weights")
    first, second = (open_bundle(path) for path in (large, other))
    entries = [bundle.graph("classify") for bundle in (first, second)]
    assert first.manifest.files["classify.onnx"] == second.manifest.files["classify.onnx"]
    assert first.sha256(entries[0]) != second.sha256(entries[1])
    plain = small_bundle.graph("classify")
    assert small_bundle.sha256(plain) == small_bundle.manifest.files[plain.file].sha256  # what fingerprints always held
    running = [
        Detector.load(bundle, bundle.plan("plain"), batch=1, threads=1).fingerprint for bundle in (first, second)
    ]
    assert running[0].classify_sha256 != running[1].classify_sha256
    assert running[0].step_sha256 == running[1].step_sha256


def test_a_large_file_is_copied_as_it_was_hashed(large: Path, tmp_path: Path) -> None:
    open_bundle(large).copy("classify.weights", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (large / "classify.weights").read_bytes()
