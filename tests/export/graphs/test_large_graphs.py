"""Graphs too large for one file, at a limit that small models exceed: one file of weights, the same outputs."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
onnx = pytest.importorskip("onnx")

from outside_weights import SMALLEST
from small_unets import ATTENTION, small_unet

from diffood.errors import ExportError
from diffood.export.build import export_bundle
from diffood.export.int8 import quantize
from diffood.export.onnx.proof import PROOF_BATCHES, export_onnx, prove_structure
from diffood.export.onnx.samples import (
    FEWEST_PROOFS,
    PROOF_OPERATIONS,
    PROOF_PAIRS,
    PROOF_ROWS,
    DrawnInputs,
    InputSampler,
    ProofInputs,
    proof_times,
)
from diffood.export.onnx.weights_file import LARGEST_INSIDE, WeightsFile
from diffood.export.request import ExportRequest
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import Bundle, Role, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import ImageShape

CLASSIFIER = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 3))
"""


def export(folder: Path, output: Path, **options: object) -> tuple[Bundle, list[str]]:
    lines: list[str] = []
    sources = ModelSources(
        folder / "unet", ClassifierSource(f"{folder / 'classifier.py'}:build"), scheduler=folder / "scheduler"
    )
    export_bundle(ExportRequest(output, sources, **options), lines.append)  # type: ignore[arg-type]
    return open_bundle(output), lines


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a UNet of 3 classes and null, a scheduler of 12 times, and a classifier's factory."""
    folder = tmp_path_factory.mktemp("models")
    small_unet(block_out_channels=(16, 16), **ATTENTION).save_pretrained(folder / "unet", safe_serialization=True)
    diffusers.DDPMScheduler(num_train_timesteps=12).save_pretrained(folder / "scheduler")
    (folder / "classifier.py").write_text(CLASSIFIER)
    return folder


@pytest.fixture(scope="module")
def inside(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle as small models have it; read-only."""
    return export(models, tmp_path_factory.mktemp("inside") / "bundle", precisions=("fp32", "fp16"))[0]


@pytest.fixture(scope="module")
def outside(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[str]]:
    """The same models exported as if they were too large for one file, and the report; read-only."""
    output = tmp_path_factory.mktemp("outside") / "bundle"
    return export(models, output, precisions=("fp32", "fp16"), largest_inside=SMALLEST)


@pytest.mark.slow
def test_every_large_graph_names_its_file_and_the_steps_share_one(outside: tuple[Bundle, list[str]]) -> None:
    data = {graph.file: graph.data for graph in outside[0].manifest.graphs}
    assert data == {
        "classify.onnx": "classify.weights",
        "step_plain.onnx": "step.weights",
        "step_guided.onnx": "step.weights",
        "classify.fp16.onnx": "classify.fp16.weights",
        "step_plain.fp16.onnx": "step.fp16.weights",
        "step_guided.fp16.onnx": "step.fp16.weights",
    }
    assert any("step.weights 0." in line for line in outside[1])


@pytest.mark.slow
def test_shared_weights_are_written_once(outside: tuple[Bundle, list[str]]) -> None:
    folder = outside[0].path
    plain = onnx.load(folder / "step_plain.onnx")  # with what lies outside
    large = [tensor for tensor in plain.graph.initializer if len(tensor.raw_data) >= SMALLEST]
    assert len(large) > 5
    size = (folder / "step.weights").stat().st_size
    assert size < sum(len(tensor.raw_data) for tensor in large) + SMALLEST * (len(large) + 1)  # page by page
    assert (folder / "step.fp16.weights").stat().st_size < 0.8 * size


@pytest.mark.slow
def test_scores_are_those_of_graphs_in_one_file(inside: Bundle, outside: tuple[Bundle, list[str]]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 1, 8, 8), np.uint8)
    for precision, plan in itertools.product(("fp32", "fp16"), ("plain", "reference")):  # without and with guidance
        scores = [
            Detector.load(bundle, bundle.plan(plan), precision=precision, batch=4, threads=1).score_pixels(pixels)
            for bundle in (inside, outside[0])
        ]
        # ONNX Runtime rounds otherwise where weights are given to it from outside
        np.testing.assert_allclose(scores[0].score, scores[1].score, rtol=1e-5, err_msg=f"{precision} {plan}")


@pytest.mark.slow
def test_graphs_prove_the_same_whatever_file_their_weights_are_in(
    inside: Bundle, outside: tuple[Bundle, list[str]]
) -> None:
    proven = [[(g.role, g.precision, g.error, g.weights) for g in b.manifest.graphs] for b in (inside, outside[0])]
    assert proven[0] == proven[1]


@pytest.mark.slow
def test_small_models_keep_one_file(inside: Bundle) -> None:
    assert {graph.data for graph in inside.manifest.graphs} == {None}
    assert not list(inside.path.glob("*.weights"))
    assert LARGEST_INSIDE < 2**31  # protobuf's limit, with room for the graph


@pytest.mark.slow
def test_an_export_is_the_same_on_every_run(models: Path, outside: tuple[Bundle, list[str]], tmp_path: Path) -> None:
    again, _ = export(models, tmp_path / "bundle", precisions=("fp32", "fp16"), largest_inside=SMALLEST)
    assert again.manifest.files == outside[0].manifest.files


class Twice(torch.nn.Module):
    """Two products by equal matrices, and a small one."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first = torch.nn.Parameter(torch.randn(64, 64, generator=draw))
        self.second = torch.nn.Parameter(self.first.detach().clone())
        self.third = torch.nn.Parameter(torch.randn(64, 2, generator=draw))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.first @ self.second @ self.third


def test_equal_weights_of_one_graph_are_written_once_and_small_ones_stay(tmp_path: Path) -> None:
    weights = WeightsFile(tmp_path / "twice.weights", largest_inside=0)
    assert export_onnx(Twice(), {"x": torch.zeros(2, 64)}, ("y",), tmp_path / "twice.onnx", weights=weights)
    assert (tmp_path / "twice.weights").stat().st_size == 64 * 64 * 4
    saved = onnx.load(tmp_path / "twice.onnx", load_external_data=False).graph.initializer
    assert sorted(len(tensor.external_data) > 0 for tensor in saved) == [False, True, True]


def test_a_graph_that_keeps_weights_in_another_file_fails_its_proof(tmp_path: Path) -> None:
    weights = WeightsFile(tmp_path / "twice.weights", largest_inside=0)
    export_onnx(Twice(), {"x": torch.zeros(2, 64)}, ("y",), tmp_path / "twice.onnx", weights=weights)
    with pytest.raises(ExportError, match=r"keeps weights in twice\.weights; a bundle holds them itself"):
        prove_structure(tmp_path / "twice.onnx", ("x",), ("y",))


@pytest.mark.slow
def test_the_search_for_int8_sees_the_same_model(inside: Bundle, outside: tuple[Bundle, list[str]]) -> None:
    digests = [
        hashlib.sha256(
            quantize.load_with_weights(bundle, bundle.graph("step_guided")).SerializeToString(deterministic=True)
        ).hexdigest()
        for bundle in (inside, outside[0])
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_int8_of_a_graph_no_message_can_hold_is_refused_by_name(
    outside: tuple[Bundle, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "LARGEST_WHOLE", 10**4)
    with pytest.raises(
        ExportError,
        match=r"step_plain\.onnx and its weights have 0\.0 GB; at most .* models again with --precision fp16",
    ):
        quantize.load_with_weights(outside[0], outside[0].graph("step_plain"))


def every(steps: int) -> torch.Tensor:
    return proof_times(steps, (), "full")


def samples(steps: int, role: Role = "step_plain", size: tuple[int, int] = (4, 4)) -> InputSampler:
    return InputSampler(DrawnInputs(ImageShape(1, *size), (1, *size), 0, steps), role)


def times(proofs: ProofInputs) -> list[list[float]]:
    return [sample["time"].tolist() for sample in proofs]


def test_a_model_that_can_afford_it_is_proven_at_every_time() -> None:
    proofs = ProofInputs(samples(60), 10**9, every(60))
    found = times(proofs)
    assert proofs.rows == 60 + sum(PROOF_BATCHES)
    assert tuple(map(len, found[:3])) == PROOF_BATCHES
    assert sorted(time for batch in found[3:] for time in batch) == list(range(60))


def test_quick_proofs_are_at_the_times_plans_ask_for_the_ends_and_sixteen_between() -> None:
    asked = {119.0, 239.5, 360.0, 999.0}
    found = proof_times(1000, asked, "quick").tolist()
    assert found == sorted(set(found))
    assert asked < set(found)
    spread = sorted(set(found) - (asked - {999.0}))
    assert (spread[0], spread[-1], len(spread)) == (0, 999, 18)
    assert np.ptp(np.diff(spread)) <= 1
    assert proof_times(5, {2.0}, "quick").tolist() == [0, 1, 2, 3, 4]
    proofs = ProofInputs(samples(1000), 1, proof_times(1000, asked, "quick"))
    assert [time for batch in times(proofs)[3:] for time in batch] == found


def test_a_large_model_is_proven_at_times_from_the_first_to_the_last() -> None:
    for rows, operations in ((20, PROOF_OPERATIONS / 20), (FEWEST_PROOFS, 1e18)):
        proofs = ProofInputs(samples(1000), int(operations), every(1000))
        found = times(proofs)
        assert (len(proofs.times), proofs.rows) == (rows, rows)
        assert {len(batch) for batch in found} == {1, 2}  # no batch is frozen
        flat = [time for batch in found for time in batch]
        assert (flat[0], flat[-1], len(flat)) == (0, 999, rows)
        assert np.diff(flat).max() <= 999 / (rows - 1) + 1


def test_proofs_draw_the_same_inputs_every_time() -> None:
    for operations in (1, 10**13):
        proofs = ProofInputs(samples(50), operations, every(50))
        first, second = ([sample["x"] for sample in proofs] for _ in range(2))
        assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))


def test_a_classifier_is_proven_in_every_batch_whatever_it_costs() -> None:
    proofs = ProofInputs(samples(50, "classify"), 10**18, every(50))
    assert [len(sample["x"]) for sample in proofs] == list(PROOF_BATCHES)
    assert (proofs.rows, len(proofs.times)) == (sum(PROOF_BATCHES), 0)


def test_the_larger_the_images_the_fewer_are_proven_at_once_and_every_time_still_is() -> None:
    for size, batches, rows in (
        ((4, 4), PROOF_BATCHES, PROOF_ROWS),
        ((32, 32), PROOF_BATCHES, PROOF_ROWS),
        ((48, 48), PROOF_BATCHES, 6),
        ((32, 64), PROOF_BATCHES, 8),
        ((64, 64), (1, 2), 2),
        ((80, 80), (1, 2), 1),
        ((112, 112), (1, 2), 1),
        ((256, 256), (1, 2), 1),
    ):
        proofs = ProofInputs(samples(60, size=size), 1, every(60))
        found = times(proofs)
        assert tuple(map(len, found[: len(batches)])) == batches, size
        timed = found[len(batches) :]
        assert [len(batch) for batch in timed[:-1]] == [rows] * (len(timed) - 1), size
        assert sorted(time for batch in timed for time in batch) == list(range(60))
        pairs = (size[0] * size[1]) ** 2
        assert rows * pairs <= PROOF_PAIRS or rows == 1


def test_a_classifier_of_large_images_is_proven_in_every_batch() -> None:
    large = samples(50, "classify", size=(224, 224))
    assert [len(sample["x"]) for sample in ProofInputs(large, 1, every(50))] == list(PROOF_BATCHES)
