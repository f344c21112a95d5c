"""A bundle of the classifier alone: every verb works on it, or says in a sentence why it needs a UNet."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_models import CLASSIFIER, CLASSIFIER_WEIGHTS, FACTORY, SMALL_BUNDLE

from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import list_engines
from diffood.runtime.detector import Detector
from diffood.zoo.images import unpack_set

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

Run = Callable[..., Any]  # gives conftest.Done

MACHINE = ("--batch", 8, "--threads", 1)
ADVICE = "Train one with `diffood train-unet --images DIR --output unet`"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders calibration, ind and digits."""
    root = tmp_path_factory.mktemp("images")
    for name, source, count in (("calibration", "fashion-validation", 150), ("ind", "fashion-test", 20)):
        unpack_set(source, root / name, count)
    unpack_set("digits", root / "digits", 20)
    return root


@pytest.fixture(scope="module")
def alone(run: Run, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated bundle of the small classifier, with FP16 graphs; read-only."""
    bundle = tmp_path_factory.mktemp("alone") / "bundle"
    model = ("--classifier", f"{CLASSIFIER}:{FACTORY}", "--classifier-weights", CLASSIFIER_WEIGHTS)
    done = run("export", *model, "--input-size", "28x28", "--precision", "fp32,fp16", "--output", bundle)
    assert done.code == 0, done
    assert "unet        none: plans of the classifier alone; images 1x28x28" in done.out
    done = run("calibrate", bundle, "--images", images / "calibration", *MACHINE)
    assert done.code == 0, done
    assert "plan        the classifier alone, margin + inside by tail: no UNet evaluation" in done.out
    assert "guarantee   With 95.0% confidence, at most" in done.out
    return bundle


def test_the_bundle_holds_no_graph_of_a_unet_and_no_schedule(alone: Path) -> None:
    bundle = open_bundle(alone)
    assert {graph.role for graph in bundle.manifest.graphs} == {"classify"}
    assert sorted(bundle.manifest.files) == ["classify.fp16.onnx", "classify.onnx", "golden.npz"]
    assert (bundle.manifest.unet, bundle.manifest.noise_levels, bundle.manifest.latent) == (None, None, None)
    fingerprint = json.loads((alone / "calibration.json").read_text())["fingerprint"]
    assert (fingerprint["step_sha256"], fingerprint["noise_levels_sha256"]) == (None, None)


def test_verdicts_do_not_depend_on_the_batch_and_cost_no_evaluation(run: Run, alone: Path, images: Path) -> None:
    files = sorted((images / "digits").iterdir())
    scores = [Detector.open(alone, batch=batch, threads=1).predict(files).score for batch in (1, 7)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    output = alone.parent / "rows.jsonl"
    assert run("serve-batch", alone, images / "digits", "--output", output, *MACHINE).code == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["unet_evaluations"] for row in rows] == [0] * 20
    assert [row["score"] for row in rows] == pytest.approx(scores[0].tolist(), rel=1e-5)


def test_it_is_inspected_verified_and_evaluated(run: Run, alone: Path, images: Path) -> None:
    done = run("inspect", alone)
    assert "unet        none: the classifier's own witnesses judge; `diffood train-unet` makes one" in done.out
    assert "plan        classifier (default): the classifier alone" in done.out
    done = run("verify", alone, "--threads", 1)
    assert done.code == 0, done
    assert "of FP32 at export" in done.out
    done = run("evaluate", alone, "--ind", images / "ind", "--ood", f"digits={images / 'digits'}", "--json", *MACHINE)
    assert done.code == 0, done
    assert done.content["unet_evaluations_per_image"] == 0
    assert set(done.content["witnesses"]["alone"]) == {"margin", "inside"}
    assert done.content["witnesses"]["without_unet"] is None


def test_its_report_shows_images_without_denoised_ones_and_says_what_is_missing(
    run: Run, alone: Path, images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("jinja2")
    page = tmp_path / "report.html"
    done = run(
        "report", alone, "--ind", images / "ind", "--ood", f"digits={images / 'digits'}", "--output", page, *MACHINE
    )
    assert done.code == 0, done
    text = page.read_text()
    assert "This bundle has no diffusion model" in text
    assert "<figcaption>original</figcaption>" in text
    assert "<figcaption>denoised</figcaption>" not in text
    assert "after denoising" not in text


def test_verbs_about_denoising_say_that_they_need_a_unet(run: Run, alone: Path, images: Path) -> None:
    tuning = ("--ind", images / "calibration", "--ood", f"digits={images / 'digits'}", "--budget", 4)
    for words, why in (
        (("tune", alone, *tuning), "plans are compared by how they denoise"),
        (("bench", alone, "--images", images / "ind"), "bench times ways to denoise"),
        (
            ("calibrate", alone, "--images", images / "ind", "--start-time", 360, "--repeats", 1, "--overwrite"),
            "a plan with start times denoises images",
        ),
    ):
        run(*words).assert_one_line(2, f"{alone} has no UNet, and {why}. {ADVICE}")


def test_a_plan_that_needs_what_it_does_not_make_is_refused(run: Run, alone: Path, images: Path) -> None:
    for words, part in (
        (("--start-time", 360), "start times and repeats go together"),
        (("--repeats", 2), "start times and repeats go together"),
        (("--witnesses", "jump"), "nothing is denoised, so not all of jump can be measured"),
        (("--plan", "default"), "No plan 'default' in this bundle; it has: classifier"),
    ):
        done = run("calibrate", alone, "--images", images / "ind", *words, "--overwrite", *MACHINE)
        done.assert_one_line(2, part)


def test_one_witness_without_a_bank_is_a_score_as_it_is(run: Run, alone: Path, images: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(alone, tmp_path / "bundle"))
    (bundle / "calibration.json").unlink()
    done = run("calibrate", bundle, "--images", images / "calibration", "--witnesses", "energy", *MACHINE)
    assert done.code == 0, done
    assert "the classifier alone, energy: no UNet evaluation" in done.out


def test_an_evaluation_with_a_unet_says_what_it_adds(run: Run, images: Path) -> None:
    bundle = Path(shutil.copytree(SMALL_BUNDLE, images / "with-unet"))
    assert run("calibrate", bundle, "--images", images / "calibration", *MACHINE).code == 0
    sets = ("--ind", images / "ind", "--ood", f"digits={images / 'digits'}")
    done = run("evaluate", bundle, *sets, *MACHINE)
    assert done.code == 0, done
    assert "What the UNet adds: without it, the other witnesses have a mean AUROC of" in done.out
    found = run("evaluate", bundle, *sets, "--json", *MACHINE).content["witnesses"]["without_unet"]
    assert found["difference"]["value"] == pytest.approx(
        run("evaluate", bundle, *sets, "--json", *MACHINE).content["mean_auroc"] - found["mean_auroc"]
    )


def test_engines_are_built_of_the_classifier_alone(run: Run, alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("polygraphy")
    bundle = Path(shutil.copytree(alone, tmp_path / "bundle"))
    done = run(
        *("export", "--bundle", bundle, "--precision", "fp32", "--engine", "tensorrt-rtx"),
        *("--gpu", "sm86", "--engine-batch", "1,8,8"),
    )
    assert done.code == 0, done
    (engine,) = list_engines(open_bundle(bundle))
    assert (engine.record.plan_name, len(engine.record.stages)) == ("classifier", 1)


def test_a_classifier_that_names_no_size_must_be_given_one(run: Run, tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text(
        "import torch\n"
        "def build():\n"
        "    pool = torch.nn.AdaptiveAvgPool2d(1)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), pool, torch.nn.Flatten(), torch.nn.Linear(8, 4))\n"
    )
    done = run("export", "--classifier", f"{net}:build", "--output", tmp_path / "bundle")
    done.assert_one_line(1, "does not say what size of images it takes", "add --input-size HxW")
    done = run("export", "--classifier", f"{net}:build", "--scheduler", tmp_path, "--output", tmp_path / "bundle")
    done.assert_one_line(2, "--unet-config and --scheduler are about a UNet: add --unet.")
