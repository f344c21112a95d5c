"""FP16 graphs made of a bundle's FP32 graphs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
import onnxruntime

from diffood.errors import ExportError
from diffood.export.halve import halve_bundle
from diffood.export.onnx.half_precision import name_outside_layers
from diffood.export.onnx.precision import LIMITS, MULTIPLYING
from diffood.export.preflight import adds_fp16
from diffood.export.request import ExportRequest
from diffood.export.run import run_export
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector


@pytest.fixture(scope="module")
def halved(small_bundle: Bundle, make_once: Callable[..., Path]) -> tuple[Bundle, list[str]]:
    """The small bundle with FP16 graphs next to its FP32 ones, and what was reported; read-only."""

    def fill(folder: Path) -> None:
        lines: list[str] = []
        path = Path(shutil.copytree(small_bundle.path, folder / "bundle"))
        run_export(ExportRequest(path, precisions=("fp16",)), lines.append)
        (folder / "lines.txt").write_text("\n".join(lines))

    folder = make_once("halved", fill)
    return open_bundle(folder / "bundle"), (folder / "lines.txt").read_text().split("\n")


def test_every_graph_is_added_and_the_fp32_ones_stay(halved: tuple[Bundle, list[str]], small_bundle: Bundle) -> None:
    bundle, lines = halved
    added = [graph for graph in bundle.manifest.graphs if graph.precision == "fp16"]
    assert [graph.role for graph in added] == [graph.role for graph in small_bundle.manifest.graphs]
    assert [graph for graph in bundle.manifest.graphs if graph.precision == "fp32"] == list(
        small_bundle.manifest.graphs
    )
    for graph, line in zip(added, lines, strict=True):
        assert 0 < graph.error < LIMITS["fp16"]
        assert set(graph.weights) == {"float16"} or graph.weights["float16"] > 0
        assert line.startswith(f"{graph.role}.fp16")
        small, large = (bundle.entry(name).size for name in (graph.file, f"{graph.role}.onnx"))
        assert small < large
    assert not adds_fp16(ExportRequest(bundle.path, precisions=("fp16",)))
    assert not list(bundle.path.glob(".fp16*"))


def test_images_and_their_update_are_not_rounded(halved: tuple[Bundle, list[str]]) -> None:
    bundle = halved[0]
    model = onnx.load(bundle.path / bundle.graph("step_plain", "fp16").file)
    x = np.random.default_rng(0).uniform(-1, 1, (2, *bundle.manifest.noised_shape)).astype(np.float32)
    inputs: dict[str, Any] = {
        "x": x,
        "time": np.full(2, 999, np.float32),
        "label": np.full(2, 3),
        "coefficients": np.tile(np.array([0, 0, 1, 0], np.float32), (2, 1)),
    }
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (moved,) = session.run(["x_next"], {value.name: inputs[value.name] for value in session.get_inputs()})
    assert np.array_equal(moved, x)


def test_scores_are_those_of_fp32(halved: tuple[Bundle, list[str]], clothes: np.ndarray) -> None:
    bundle = halved[0]
    plan = bundle.plan("plain")
    exact, half = (Detector.load(bundle, plan, precision=kind, batch=8, threads=1) for kind in ("fp32", "fp16"))
    wanted, found = (detector.score(clothes[:8]).score for detector in (exact, half))
    assert np.abs(found - wanted).max() < 0.02 * np.ptp(wanted)
    assert np.abs(found - wanted).max() > 0


def test_what_is_before_and_after_layers_stays(small_bundle: Bundle) -> None:
    model = onnx.load(small_bundle.path / "step_guided.onnx")
    kept = set(name_outside_layers(model))
    kinds = {node.op_type for node in model.graph.node if node.name in kept}
    assert {"Sin", "Cos"} <= kinds
    assert not kinds & set(MULTIPLYING)
    made = {name: node for node in model.graph.node for name in node.output}
    assert all(made[value.name].name in kept for value in model.graph.output)


def test_an_error_leaves_the_bundle_as_it_was(small_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "fp16", 0.0)
    before = {file.name: file.read_bytes() for file in small_bundle_copy.iterdir()}
    with pytest.raises(ExportError, match=r"classify.fp16.onnx differs"):
        halve_bundle(small_bundle_copy, lambda _: None)
    assert {file.name: file.read_bytes() for file in small_bundle_copy.iterdir()} == before
