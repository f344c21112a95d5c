"""The command line on a latent bundle: calibrated, served, judged and shown as one of images is."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import latent_models
import pytest
from PIL import Image

from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.writing import write_bundle
from diffood.zoo.images import unpack_set

Run = Callable[..., Any]  # gives conftest.Done

pytestmark = pytest.mark.slow  # a calibration and five runs of its own; what they call has tests that are quick

BENCH = ("--seconds", 0, "--rounds", 1, "--batch", 8, "--threads", 1, "--no-compile", "--no-memory")
MACHINE = ("--batch", 8, "--threads", 1)
PLAN = ("--start-time", 10, "--stride", 5, "--repeats", 1, "--guidance", 1)


@pytest.fixture(scope="module")
def latent(dit_bundle: Bundle, clothes_folder: Path, tmp_path_factory: pytest.TempPathFactory, start: Run) -> Path:
    """A latent bundle that the command line calibrated; read-only."""
    path = Path(shutil.copytree(dit_bundle.path, tmp_path_factory.mktemp("latent") / "bundle"))
    done = start("calibrate", path, "--images", clothes_folder, "--fpr", 0.3, *PLAN, *MACHINE)
    assert done.code == 0, done
    fingerprint = json.loads((path / "calibration.json").read_bytes())["fingerprint"]
    assert fingerprint["decode_sha256"] == dit_bundle.manifest.files["decode.onnx"].sha256
    return path


def image_size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_rows_and_pictures_of_what_was_flagged(run: Run, latent: Path, folders: Path, tmp_path: Path) -> None:
    rows, flagged = tmp_path / "rows.jsonl", tmp_path / "flagged"
    done = run("serve-batch", latent, folders / "digits", "--output", rows, "--save-flagged", flagged, *MACHINE)
    assert done.code == 0, done
    read = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(read) == 10
    assert {row["status"] for row in read} == {"ok"}
    assert {row["unet_evaluations"] for row in read} <= {2 * 2}
    pictures = [path for path in flagged.iterdir() if path.name.endswith(".denoised.png")]
    assert len(pictures) == sum(row["is_ood"] for row in read) > 0
    assert {image_size(path.read_bytes()) for path in pictures} == {(28, 28)}  # decoded: latents are 14 x 14


def test_an_evaluation(run: Run, latent: Path, folders: Path, tmp_path: Path) -> None:
    sets = ("--ind", folders / "ind", "--ood", f"digits={folders / 'digits'}")
    done = run("evaluate", latent, *sets, "--output", tmp_path / "report", *MACHINE)
    assert done.code == 0, done
    assert 0 <= json.loads((tmp_path / "report" / "evaluation.json").read_bytes())["sets"]["digits"]["auroc"] <= 1


def test_a_report_shows_decoded_images(run: Run, latent: Path, folders: Path, tmp_path: Path) -> None:
    sets = ("--ind", folders / "ind", "--ood", f"digits={folders / 'digits'}")
    done = run("report", latent, *sets, "--output", tmp_path / "report.html", *MACHINE)
    assert done.code == 0, done
    page = (tmp_path / "report.html").read_text()
    assert "it denoises latents of 4 x 14 x 14" in page
    sizes = [image_size(base64.b64decode(data)) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    shown = [size for size in sizes if max(size) < 100]  # the others are figures
    assert set(shown) == {(28, 28)}
    assert len(shown) % 3 == 0  # original, denoised, difference


def test_bench_times_the_loop_in_torch_on_latents(run: Run, latent: Path, dit_pipeline: Path, folders: Path) -> None:
    words = ("bench", latent, "--images", folders / "ind", "--plan", "plain", "--precision", "fp32", *BENCH)
    models = ("--unet", dit_pipeline, "--classifier", latent_models.classifier_of(dit_pipeline))
    done = run(*words, *models)
    assert done.code == 0, done
    assert "parameters on latents of 4x14x14 of 1x28x28, 10 images in turn" in done.out
    assert "\nofficial loop, torch eager, fp32 " in done.out
    found = run(*words, *models, "--json").content
    assert found["latent"] == {"channels": 4, "height": 14, "width": 14}
    assert "torch eager" in found["rows"][0]["name"]
    eager, by_hand, _ = (row["evaluations"] for row in found["rows"])
    assert eager == by_hand


def test_verifying_runs_both_halves_of_the_autoencoder(run: Run, latent: Path, folders: Path) -> None:
    done = run("verify", latent, "--backend", "onnxruntime-cpu", *MACHINE)
    assert done.code == 0, done
    assert "golden" in done.out


def test_int8_graphs_are_added_and_replaced(
    run: Run, dit_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffood.export.int8 import quantize

    path = Path(shutil.copytree(dit_bundle.path, tmp_path / "bundle"))
    unpack_set("fashion-validation", tmp_path / "images", quantize.FEWEST_IMAGES)
    manifest = dit_bundle.manifest
    plan = dit_bundle.plan().changed({"guidance": 0.0})
    unguided = {  # without the guided graph, whose search takes longest
        "graphs": tuple(graph for graph in manifest.graphs if graph.role != "step_guided"),
        "plans": manifest.plans | {manifest.default_plan: plan},
    }
    write_bundle(path, lambda files: manifest.model_copy(update={**unguided, "files": files}))
    words = ("export", "--bundle", path, "--precision", "int8", "--images", tmp_path / "images")
    run(*words).assert_one_line(1, "classify.onnx: none of its 2 products can be int8")  # it has but two small products
    monkeypatch.setattr(quantize, "BUDGETS", dict.fromkeys(quantize.BUDGETS, 0.2))
    for _ in range(2):
        done = run(*words)
        assert done.code == 0, done
        assert "decode            stays fp32 in the int8 variant: decode.onnx" in done.out
        bundle = open_bundle(path)
        assert bundle.precisions == ("fp32", "fp16", "int8")
        assert bundle.manifest.files["decode.onnx"] == manifest.files["decode.onnx"]


def test_what_it_shows(run: Run, latent: Path, bundle_copy: Path) -> None:
    done = run("inspect", latent)
    assert "latents     4x14x14, diffusers AutoencoderKL vae, latents scaled by 1.5" in done.out
    assert "graph       encode: encode.fp16.onnx, fp16" in done.out
    assert "graph       decode: decode.onnx stays fp32 in the fp16 variant\n" in done.out
    assert "decode.onnx, fp16" not in done.out
    assert run("inspect", latent, "--json").content["manifest"]["latent"]["channels"] == 4
    assert "latents" not in run("inspect", bundle_copy).out
    assert run("inspect", bundle_copy, "--json").content["manifest"]["latent"] is None
