"""The shape of the house: arrows between rooms run one way, and what runs on the edge runs without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffood
from diffood.zoo import BUNDLE
from diffood.zoo.images import unpack_set

HOUSE = Path(diffood.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))
MOST_LINES = 400

# Which rooms a room may use, itself and diffood.errors apart.
ALLOWED = {
    "runtime": set(),
    "calibration": {"runtime"},
    "bench": {"runtime", "calibration", "export"},
    "export": {"runtime"},
    "cli": {"runtime", "calibration", "export", "zoo"},
    "zoo": {"runtime", "calibration", "export", "bench", "report"},
}
HEAVY = {"torch", "diffusers", "onnx", "onnxscript", "safetensors"}  # the export extra
GPU = {"tensorrt", "tensorrt_rtx", "polygraphy", "cuda"}  # the engines' extras; imported where they are used
# zoo's scripts for training and the classifier's definition are run or loaded where the extra is installed.
MAY_BE_HEAVY = {"zoo/train_unet.py", "zoo/train_classifier.py", "zoo/train_steady.py", "zoo/classifier.py"}


def name(path: Path) -> str:
    return path.relative_to(HOUSE).as_posix()


def modules(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Full names of what import statements among the nodes name; `from a import b` gives a.b, which may be a module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when a module is imported, in class bodies and conditions too."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_arrows_between_rooms_run_one_way(path: Path) -> None:
    room = name(path).split("/")[0]
    used = {module.split(".")[1] for module in modules(ast.walk(ast.parse(path.read_text()))) if "diffood." in module}
    if room in ALLOWED:
        assert used - {room, "errors", "__version__"} <= ALLOWED[room]
    elif room == "errors.py":
        assert used == set()
    else:
        assert used == {"__init__.py": {"runtime"}, "__main__.py": {"cli"}}[room]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_libraries_are_imported_in_export_and_training_only(path: Path) -> None:
    room, tree = name(path).split("/")[0], ast.parse(path.read_text())
    if room == "export" or name(path) in MAY_BE_HEAVY:
        return
    everywhere = {module.split(".")[0] for module in modules(ast.walk(tree))}
    at_import = {module.split(".")[0] for module in modules(outside_functions(tree))}
    assert not at_import & (HEAVY | GPU)
    if name(path) != "cli/export.py":
        assert not everywhere & HEAVY


def test_the_rooms_are_all_known() -> None:
    assert {path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists()} == ALLOWED.keys()
    assert {name(path) for path in FILES} >= MAY_BE_HEAVY | {"cli/export.py"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_short_and_begins_with_a_sentence(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert (ast.get_docstring(ast.parse(text)) or "").split("\n")[0].endswith(".")


REFUSING = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is refused here", name=name)

sys.meta_path.insert(0, Refuse())
"""


def run_refusing(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program in which importing a heavy library raises."""
    command = [sys.executable, "-c", REFUSING + program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_edge_needs_no_heavy_library(bundle_copy: Path, clothes_folder: Path, tmp_path: Path) -> None:
    unpack_set("digits", tmp_path / "digits", 8)
    machine = ["--batch", "8", "--threads", "1"]
    fast = ["--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0", *machine]
    ood = ["--ood", f"digits={tmp_path / 'digits'}"]
    rows = tmp_path / "rows.parquet"
    verbs = [
        ["inspect", bundle_copy],
        ["verify", bundle_copy, *machine],
        ["calibrate", bundle_copy, "--images", clothes_folder, "--fpr", "0.1", *fast],
        ["serve-batch", bundle_copy, tmp_path / "digits", "--output", rows, *machine],
        # eight digits must not raise the alarm here, whose exit code is not 0
        ["monitor", rows, "--bundle", bundle_copy, "--level", "1e-9", "--output", tmp_path / "drift.png"],
        ["evaluate", bundle_copy, "--ind", tmp_path / "digits", *ood, "--output", tmp_path / "report", *machine],
    ]
    program = f"""
from diffood.cli import app

for words in {[list(map(str, verb)) for verb in verbs]!r}:
    assert not app(words, standalone_mode=False), words
assert not {HEAVY!r} & sys.modules.keys()
"""
    done = run_refusing(program)
    assert done.returncode == 0, done.stderr
    assert rows.exists()
    assert (tmp_path / "drift.png").exists()
    assert (tmp_path / "report" / "scores.png").exists()


def test_the_detector_needs_no_heavy_library_nor_the_command_lines() -> None:
    program = f"""
import numpy as np
from diffood.runtime.detector import Detector

detector = Detector.open({str(BUNDLE)!r}, "plain", batch=8, threads=1)
assert detector.score(np.zeros((1, 28, 28), np.uint8)).score.shape == (1,)
assert not {HEAVY | {"typer", "rich", "matplotlib", "scipy", "pyarrow"}!r} & sys.modules.keys()
"""
    done = run_refusing(program)
    assert done.returncode == 0, done.stderr
