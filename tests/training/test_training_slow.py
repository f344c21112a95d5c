"""The whole way of a user without a UNet, and trainings that are killed in a process of their own."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from diffood.training.request import TrainingRequest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffood.export.sources.unets.diffusers_model import WEIGHTS
from diffood.training.checkpoint import CHECKPOINT

pytestmark = pytest.mark.slow

Ask = Callable[..., TrainingRequest]
NET = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 64, 3)
    )
"""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "diffood", *map(str, words)]


def done(*words: object) -> str:
    """What a run that ends well prints."""
    run = subprocess.run(command(*words), capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout


def options(images: Path, output: Path) -> tuple[object, ...]:
    steps = ("--steps", 600, "--batch", 4, "--threads", 1, "--picture-every", 0, "--precision", "fp32")
    return ("train-unet", "--images", images, "--output", output, *steps)


def test_a_killed_process_continues_to_the_weights_of_one_that_was_not(tiny_images: Path, tmp_path: Path) -> None:
    done(*options(tiny_images, tmp_path / "whole"))
    killed, kills = tmp_path / "killed", 0
    for steps in (1, 300):  # bytes in the checkpoint that show it is past its first look; the first is written at once
        process = subprocess.Popen(command(*options(tiny_images, killed)), stderr=subprocess.DEVNULL)
        checkpoint, deadline = killed / CHECKPOINT, time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if checkpoint.is_file() and (steps == 1 or (killed / WEIGHTS).is_file()):
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.05)
        process.wait(timeout=60)
    assert kills
    if checkpoint.exists():
        assert "continued   after step" in done(*options(tiny_images, killed))
    assert (killed / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_trained_unet_is_exported_calibrated_and_judges(tiny_images: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    (tmp_path / "net.py").write_text(NET)
    model = ("--classifier", f"{tmp_path / 'net.py'}:build")
    unet, bundle = tmp_path / "unet", tmp_path / "bundle"
    done(*options(tiny_images, unet), *model, "--labels", "classifier")
    exported = done("export", "--unet", unet, *model, "--output", bundle)
    assert "1x8x8, labels: class+null" in exported
    assert "schedule    scheduler_config.json: 1000 steps, predicts epsilon" in exported
    fresh = tmp_path / "fresh"  # the training's own images are refused
    fresh.mkdir()
    for path in tiny_images.glob("*/*.png"):
        with Image.open(path) as image:
            ImageOps.mirror(image).save(fresh / f"{path.parent.name}-{path.name}")
    calibrated = done("calibrate", bundle, "--images", fresh, "--fpr", 0.2, "--plan", "plain", "--threads", 1)
    assert "guarantee   With 95.0% confidence" in calibrated
    done("serve-batch", bundle, tiny_images, "--output", tmp_path / "rows.jsonl", "--threads", 1)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 48
