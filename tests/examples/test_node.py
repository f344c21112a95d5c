"""The example in JavaScript, which knows nothing of diffood, gives the verdicts that Python gives.

Skipped where Node.js or its packages cannot be had.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from diffood.calibration.calibrate import calibrate_files
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.zoo.images import unpack_set

pytestmark = pytest.mark.slow  # installs packages, and scores hundreds of images with the trained models

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"
SETS = {"fashion-test": 100, "digits": 50, "textures": 50}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with the packages it needs."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no Node.js here")
    folder = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("node") / "example"))
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime-node: {done.stderr[-300:]}")
    return folder


@pytest.fixture(scope="module")
def bundle(zoo_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated copy of the shipped bundle."""
    place = tmp_path_factory.mktemp("zoo")
    path = Path(shutil.copytree(zoo_bundle.path, place / "bundle"))
    unpack_set("fashion-validation", place / "images", 300)
    detector = Detector.load(open_bundle(path), zoo_bundle.plan(), threads=1)
    calibrate_files(detector, list_inputs([str(place / "images")]), 0.05, 0.95, "pac").save()
    return path


def run_example(example: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = ["node", "verdict.mjs", *map(str, words)]
    return subprocess.run(command, cwd=example, capture_output=True, text=True, check=False, timeout=300)


def test_verdicts_and_p_values_equal_those_of_python(example: Path, bundle: Path, tmp_path: Path) -> None:
    for name, count in SETS.items():
        unpack_set(name, tmp_path / name, count)
    files = sorted(str(path) for path in tmp_path.rglob("*.png"))
    done = run_example(example, bundle / "detector.onnx", *files)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = Detector.open(bundle, threads=1).predict(files)
    assert [row["file"] for row in rows] == files
    assert len(files) == sum(SETS.values())
    assert 0 < expected.is_ood.sum() < len(files)
    np.testing.assert_array_equal([row["is_ood"] for row in rows], expected.is_ood)
    np.testing.assert_array_equal([row["predicted_class"] for row in rows], expected.predicted)
    np.testing.assert_allclose([row["p_value"] for row in rows], expected.p_value, rtol=0, atol=1e-4)
    np.testing.assert_allclose([row["score"] for row in rows], expected.score, rtol=1e-4, atol=1e-4)


def test_what_it_cannot_judge_is_an_error_in_a_sentence(example: Path, bundle: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (30, 28)).save(tmp_path / "wide.png")
    Image.new("RGBA", (28, 28), (1, 2, 3, 100)).save(tmp_path / "glass.png")
    for name, message in {"wide": "is 30x28, the model takes 28x28", "glass": "has transparent pixels"}.items():
        done = run_example(example, bundle / "detector.onnx", tmp_path / f"{name}.png")
        assert done.returncode != 0
        assert message in done.stderr
