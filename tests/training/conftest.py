"""Tiny images in folders of their classes, and trainings of a few steps on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffood.cli.progress import show_progress
from diffood.training.request import TrainingRequest

CLASSES = ("bars", "dots", "grey")
PER_CLASS = 16
SIDE = 8


def draw_tiny(name: str, index: int) -> np.ndarray:
    """An 8x8 grey image uint8 of a class; no two are the same."""
    random = np.random.default_rng([CLASSES.index(name), index])
    base = {"bars": np.indices((SIDE, SIDE))[0] % 2 * 200, "dots": np.indices((SIDE, SIDE)).sum(0) % 2 * 200}
    return np.asarray(base.get(name, np.full((SIDE, SIDE), 100)) + random.integers(0, 55, (SIDE, SIDE)), np.uint8)


@pytest.fixture(scope="package")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder for each class; read-only."""
    root = tmp_path_factory.mktemp("tiny")
    for name in CLASSES:
        (root / name).mkdir()
        for index in range(PER_CLASS):
            Image.fromarray(draw_tiny(name, index)).save(root / name / f"{index:02}.png")
    return root


@pytest.fixture
def ask(tiny_images: Path, tmp_path: Path) -> Callable[..., TrainingRequest]:
    """A request for a training of twelve steps of four tiny images, into tmp_path/unet; arguments change it."""

    def make(**changes: Any) -> TrainingRequest:
        given = {
            "images": (str(tiny_images),),
            "output": tmp_path / "unet",
            "steps": 12,
            "batch": 4,
            "evaluate_every": 5,
            "picture_every": 0,
            "precision": "fp32",
            "threads": 1,
        }
        return TrainingRequest(**{**given, **changes})

    return make


@pytest.fixture(scope="session")
def train() -> Callable[..., list[str]]:
    """Run a request and return the lines it reports; `progress` replaces the bar."""
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from diffood.training.run import run_training

    def run(request: TrainingRequest, progress: Any = show_progress) -> list[str]:
        lines: list[str] = []
        run_training(request, lines.append, progress)
        return lines

    return run
