"""diffood train-unet from the command line: what it prints, refuses, and sets aside."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_models import CLASSIFIER, CLASSIFIER_WEIGHTS, FACTORY

from diffood.zoo.images import unpack_set

pytest.importorskip("torch")
pytest.importorskip("diffusers")

Run = Callable[..., Any]  # gives conftest.Done

SMALL = ("--steps", 3, "--batch", 4, "--threads", 1, "--picture-every", 0)
MISUSES: list[tuple[tuple[object, ...], str]] = [
    (("--labels", "classifier"), "--labels classifier takes the predictions of a classifier: add --classifier"),
    (("--steps", 0), "--steps is 0; give a number above 0"),
    (("--minutes", "nan"), "--minutes is nan; give a number above 0"),
    (("--seed", -1), "--seed -1 is not possible"),
    (("--size", "huge"), "'huge' is not one of 'tiny', 'small', 'base'"),
    (("--image-size", "33x33"), "33x33 cannot be halved often enough; 32x32 can"),
    (("--labels", "folders"), "--labels folders needs folders, one per class"),
    (("--classifier", "net.py"), "'net.py' is not one of FILE.py:FACTORY"),
]


@pytest.fixture(scope="module")
def clothes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty clothes in one folder, and a text that calls itself an image."""
    folder = tmp_path_factory.mktemp("clothes")
    unpack_set("fashion-validation", folder, 40)
    (folder / "text.png").write_text("not an image")
    return folder


def test_a_unet_is_trained_on_the_predictions_of_a_classifier(run: Run, clothes_folder: Path, tmp_path: Path) -> None:
    model = ("--classifier", f"{CLASSIFIER}:{FACTORY}", "--classifier-weights", CLASSIFIER_WEIGHTS)
    done = run("train-unet", "--images", clothes_folder, "--output", tmp_path / "unet", *SMALL, *model)
    assert done.code == 3, done
    assert "set aside   'text.png'" in done.err
    assert "images      40 of 1x28x28 (their own size)" in done.out
    assert re.search(r"labels      the classifier's predictions; 10 classes", done.out)
    assert f"next        diffood export --unet {tmp_path / 'unet'} --classifier {CLASSIFIER}:{FACTORY}" in done.out
    assert (tmp_path / "unet" / "config.json").is_file()


def test_what_cannot_be_trained_is_explained(run: Run, clothes_folder: Path, tmp_path: Path) -> None:
    for words, part in MISUSES:
        done = run("train-unet", "--images", clothes_folder, "--output", tmp_path / "unet", *SMALL, *words)
        assert done.code in (1, 2), done
        assert part in done.err
        assert "Traceback" not in done.err
    assert not (tmp_path / "unet").exists() or not any((tmp_path / "unet").iterdir())
