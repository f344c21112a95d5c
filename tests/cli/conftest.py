"""Runs the command line for the tests of this folder, in this process and in one of its own; a calibrated bundle."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Done, run_here

from diffood.runtime.bundle.bundle import Bundle
from diffood.zoo.images import unpack_set

# One UNet evaluation an image: these tests look at the command line, not at detection.
PLAN = ("--start-time", "360", "--stride", "360", "--repeats", "1", "--guidance", "0")


@pytest.fixture(scope="session")
def run() -> Callable[..., Done]:
    """`run_here`, for tests and fixtures of any scope."""
    return run_here


@pytest.fixture(scope="session")
def start() -> Callable[..., Done]:
    """The command line in a process of its own; `before` is Python to run first."""

    def call(*words: object, before: str = "") -> Done:
        code = f"{before}\nimport runpy, sys\nrunpy.run_module('diffood', run_name='__main__')"
        command = ["-c", code] if before else ["-m", "diffood"]
        done = subprocess.run(
            [sys.executable, *command, *map(str, words)], capture_output=True, text=True, check=False, timeout=120
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="package")
def calibrated(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle) -> Path:
    """A copy of the small bundle that the command line calibrated, 32 images fitted on and 64 scored; read-only."""
    root = tmp_path_factory.mktemp("cli")
    bundle = Path(shutil.copytree(small_bundle.path, root / "bundle"))
    unpack_set("fashion-validation", root / "images", 96)
    done = run_here("calibrate", bundle, "--images", root / "images", *PLAN, "--batch", 8, "--threads", 1)
    assert done.code == 0, done
    assert "guarantee   With 95.0% confidence, at most" in done.out
    assert str(bundle / "calibration.json") in done.out
    assert done.err == ""
    return bundle


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ind, digits and textures of ten images each, and broken: one good file, one text, one odd name."""
    root = tmp_path_factory.mktemp("folders")
    for name, images in {"ind": "fashion-test", "digits": "digits", "textures": "textures"}.items():
        unpack_set(images, root / name, 10)
    unpack_set("fashion-test", root / "broken", 1)
    (root / "broken" / "text.png").write_text("not an image")
    (root / "broken" / "a\x1b[31m.png").touch()
    return root
