"""diffood bench: a row for every way to run, ratios to the first, what was skipped and why. Times are not judged."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sealed import sealed

from diffood import zoo
from diffood.bench.compare import Comparison, ContenderResult, Spread
from diffood.bench.machine import describe_machine
from diffood.cli.text.comparison import describe_comparison
from diffood.runtime.bundle.bundle import MANIFEST, Bundle
from diffood.zoo.images import unpack_set

Run = Callable[..., Any]  # gives conftest.Done
FAST = ("--seconds", "0", "--rounds", "2", "--batch", "2", "--threads", "1", "--no-compile", "--no-memory")
EAGER = "official loop, torch eager, fp32"
BY_HAND = "official loop, ONNX Runtime a step, fp32"
OURS = "diffood, reference plan, fp32 on onnxruntime-cpu"


def make_cheap(bundle: Path) -> Path:
    """The bundle with a reference plan of 4 evaluations: these tests look at the command line."""
    path = bundle / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["plans"]["reference"] |= {"start_times": [120], "stride": 60, "repeats": 1}
    path.write_bytes(sealed(manifest))
    return bundle


@pytest.fixture
def cheap_bundle(bundle_copy: Path) -> Path:
    """The shipped bundle, whose torch models are embedded."""
    return make_cheap(bundle_copy)


@pytest.fixture
def small_cheap_bundle(small_bundle_copy: Path) -> Path:
    """A small bundle, whose torch models nobody has."""
    return make_cheap(small_bundle_copy)


def test_bench_compares_every_contender_on_the_embedded_images(run: Run, cheap_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    done = run("bench", cheap_bundle, "--plan", "reference", *FAST, "--output", tmp_path / "chart.png", "--json")
    assert done.code == 0, done
    content = done.content
    assert [row["name"] for row in content["rows"]] == [EAGER, BY_HAND, OURS]
    assert [row["evaluations"] for row in content["rows"]] == [4, 4, 4]
    assert content["rows"][0]["ratio"] == {"median": 1, "low": 1, "high": 1}
    assert all(row["images"] == 4 for row in content["rows"])  # two rounds of a chunk of two
    assert all(row["images_per_second"]["median"] > 0 for row in content["rows"])
    assert all(row["latency"]["p50"] > 0 and row["peak_memory"] is None for row in content["rows"])
    assert [row["engine_share"] is None for row in content["rows"]] == [True, False, False]
    assert (content["images"], content["rounds"], content["batch"], content["threads"]) == (1000, 2, 2, 1)
    assert content["machine"]["versions"]["torch"]
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_bench_prints_a_table_with_the_machine_and_what_was_skipped(
    run: Run, small_cheap_bundle: Path, tmp_path: Path
) -> None:
    unpack_set("fashion-validation", tmp_path / "images", 3)
    done = run("bench", small_cheap_bundle, "--plan", "reference", "--images", tmp_path / "images", *FAST)
    assert done.code == 0, done
    assert "3 images in turn" in done.out
    assert "cores" in done.out
    assert f"\n{OURS} " in done.out
    assert "skipped     diffood, fp32 on tensorrt: " in done.out


def test_columns_stand_apart_where_images_end_early() -> None:
    exact = Spread(34.4, 31.3, 37.6)
    row = ContenderResult("ours", "", 64, exact, exact, 1.65625, 0.905, None, None)
    lines = describe_comparison(Comparison((row,), (), 2, describe_machine(), None, None))
    line = next(line for line in lines if line.startswith("ours"))
    assert line.split() == ["ours", "34.4", "(31.3-37.6)", "34.4", "(31.3-37.6)", "1.66"]


def test_bench_without_torch_leaves_its_rows_out_in_a_line_each(start: Run, small_cheap_bundle: Path) -> None:
    before = (
        "import sys\nclass Refuse:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ImportError('refused', name=name)\nsys.meta_path.insert(0, Refuse())\n"
    )
    done = start("bench", small_cheap_bundle, "--plan", "reference", *FAST, "--json", before=before)
    assert done.code == 0, done
    assert [row["name"] for row in done.content["rows"]] == [BY_HAND, OURS]
    assert done.content["rows"][0]["ratio"]["median"] == 1
    assert [EAGER, "needs torch: pip install 'diffood[export]'"] in done.content["skipped"]


def test_bench_of_a_foreign_bundle_needs_its_models_and_compares_no_others(run: Run, small_cheap_bundle: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    sha256 = json.loads((small_cheap_bundle / MANIFEST).read_text())["unet"]["weights_sha256"]
    done = run("bench", small_cheap_bundle, "--plan", "reference", *FAST, "--json")
    assert done.code == 0, done
    assert "give --unet and --classifier" in dict(done.content["skipped"])[EAGER]
    models = ("--unet", zoo.UNET, "--classifier", f"{zoo.CLASSIFIER}:{zoo.FACTORY}")
    weights = ("--classifier-weights", zoo.CLASSIFIER_WEIGHTS)
    done = run("bench", small_cheap_bundle, "--plan", "reference", *FAST, *models, *weights, "--json")
    assert sha256[:12] in dict(done.content["skipped"])[EAGER]


def test_bench_takes_a_classifier_as_export_takes_it(run: Run, cheap_bundle: Path, tmp_path: Path) -> None:
    """An ONNX file of two outputs alike: without --logits-output nobody can tell which of them are the logits."""
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(cheap_bundle / "classify.onnx")
    for old, new in (("logits", "answer"), ("features", "inner")):
        for node in graph.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        next(output for output in graph.graph.output if output.name == old).name = new
    onnx.save(graph, tmp_path / "net.onnx")
    path = cheap_bundle / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["classifier"]["weights_sha256"] = hashlib.sha256((tmp_path / "net.onnx").read_bytes()).hexdigest()
    path.write_bytes(sealed(manifest))
    models = ("--unet", zoo.UNET, "--classifier", f"onnx:{tmp_path / 'net.onnx'}", "--download")
    words = ("bench", cheap_bundle, "--plan", "reference", *FAST, *models, "--json")
    assert "--logits-output" in dict(run(*words).content["skipped"])[EAGER]
    named = run(*words, "--logits-output", "answer", "--features-output", "inner")
    assert [row["name"] for row in named.content["rows"]] == [EAGER, BY_HAND, OURS]
    wrong = run(*words, "--logits-output", "answer", "--features-output", "outer")
    assert "outer" in dict(wrong.content["skipped"])[EAGER]


def test_bench_explains_a_wrong_option(run: Run, small_bundle: Bundle) -> None:
    for words, said in (
        (("--plan", "fastest"), ("fastest", "reference")),
        (("--unet", "models/unet"), ("--classifier",)),
        (("--output", "chart.jpeg"), ("chart.jpeg", ".png")),
        (("--precision", "fp64"), ("fp64", "int8")),
        (("--precision", "int8"), ("int8",)),
        (("--batch", "0"), ("--batch",)),
        (("--mean", "grey", "--unet", "a", "--classifier", "b"), ("--mean", "grey")),
        (("--input-size", "224*224", "--unet", "a", "--classifier", "b"), ("--input-size", "224*224", "HxW")),
    ):
        run("bench", small_bundle.path, *words).assert_wrong_usage(*said)
