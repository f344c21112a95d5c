"""What runs on the edge runs without torch; files are short. `make check` holds the arrows between rooms."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import diffood
from diffood.zoo import BUNDLE
from diffood.zoo.images import unpack_set

HOUSE = Path(diffood.__file__).parent
MOST_LINES, MOST_OF_A_BODY, MOST_OF_A_VERB = 400, 60, 40
CAMEL = re.compile(r"[A-Z]\w*[a-z]\w*").fullmatch
HEAVY = {"torch", "diffusers", "onnx", "onnxscript", "safetensors"}  # the export extra
GPU = {"tensorrt", "tensorrt_rtx", "polygraphy", "cuda"}  # the engines' extras; imported where they are used


def imported_at_import(tree: ast.Module) -> set[str]:
    """First names of the libraries that importing a module imports, in class bodies and conditions too."""

    def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield child
                yield from outside_functions(child)

    names: set[str] = set()
    for node in outside_functions(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def test_files_are_short_and_begin_with_a_sentence() -> None:
    for path in HOUSE.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= MOST_LINES, path
        assert (ast.get_docstring(ast.parse(text)) or "").split("\n")[0].endswith("."), path


def longest_body(module: ast.Module) -> int:
    """Lines of the longest body of a function, without its docstring; its options stand in the signature."""
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    bodies = [node.body[1:] if ast.get_docstring(node) else node.body for node in functions]
    return max((body[-1].end_lineno - body[0].lineno + 1 for body in bodies if body), default=0)


def test_bodies_of_functions_are_short_and_those_of_verbs_shorter() -> None:
    for path in HOUSE.rglob("*.py"):
        most = MOST_OF_A_VERB if path.parent == HOUSE / "cli" else MOST_OF_A_BODY
        assert longest_body(ast.parse(path.read_text())) <= most, path


def named_types(module: ast.Module) -> Iterator[str]:
    """Names of the classes and of the type aliases, written in CamelCase; options of commands are no types."""
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            yield node.name.lstrip("_")
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Subscript | ast.BinOp):
            continue
        if "typer." not in ast.unparse(node.value):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name) and CAMEL(target.id))


def test_no_name_of_a_type_occurs_twice() -> None:
    places: dict[str, Path] = {}
    for path in HOUSE.rglob("*.py"):
        for name in named_types(ast.parse(path.read_text())):
            other = places.setdefault(name, path)
            assert other is path, f"{name} in {path} and {other}"


def test_engine_libraries_are_imported_where_they_are_used() -> None:
    for path in HOUSE.rglob("*.py"):
        assert not imported_at_import(ast.parse(path.read_text())) & GPU, path


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
sys.modules["fcntl"] = None  # Windows has none
from diffood.runtime.detector import Detector

detector = Detector.open({str(BUNDLE)!r}, "plain", batch=8, threads=1)
assert detector.score(np.zeros((1, 28, 28), np.uint8)).score.shape == (1,)
assert not {HEAVY | {"typer", "rich", "matplotlib", "scipy", "pyarrow"}!r} & sys.modules.keys()
"""
    done = run_refusing(program)
    assert done.returncode == 0, done.stderr


PRINTING = """
import logging, sys
import click, typer
from rich import print as show
from rich.console import Console

typer.echo(""), typer.secho(""), click.echo(""), print(""), show(""), Console()
sys.stdout.write(""), sys.stderr.write(""), logging.basicConfig(), logging.StreamHandler()
"""


def test_the_linter_lets_nothing_be_printed_but_through_one_file() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "T201,TID251", "--output-format", "concise", "-q"]
    for file, found in (("diffood/cli/new.py", 10), ("diffood/runtime/new.py", 10), ("diffood/cli/printing.py", 0)):
        done = subprocess.run(
            [*command, "--stdin-filename", file, "-"],
            input=PRINTING, capture_output=True, text=True, check=False, cwd=HOUSE.parent,
        )  # fmt: skip
        assert len(done.stdout.splitlines()) == found, done
