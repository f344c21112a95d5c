"""Scores the tests of the pure modules by mutation: python tests/mutation/score.py, or `make mutation`.

modules.json names each module and the tests that judge it. Of each module's mutants by cosmic-ray's operators a sample
of fixed seed is taken. A forked process imports the mutant in place of the module and runs those tests up to the first
failure: a mutant is killed by a failure, or by using ten times the processor time of the sound module. No file changes.
"""

import argparse
import importlib.abc
import importlib.util
import json
import os
import random
import re
import resource
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported

import hypothesis
import numpy  # noqa: F401 - imported once, before forking
import onnxruntime  # noqa: F401
import pydantic  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import typer.testing  # noqa: F401
from cosmic_ray import plugins
from cosmic_ray.mutating import mutate_code

TABLE = Path(__file__).parent / "modules.json"
SAMPLE, SEED = 40, 17
OPTIONS = ("-x", "-o", "addopts=-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow")
ARITHMETIC, COMPARISON = "Add|Sub|Mul|Div|FloorDiv|Mod|Pow", "Eq|NotEq|Lt|LtE|Gt|GtE"
OPERATORS = re.compile(  # without those that change annotations, and bit operations, of which there are none
    rf"core/(ReplaceBinaryOperator_({ARITHMETIC})_({ARITHMETIC})|ReplaceComparisonOperator_({COMPARISON})_({COMPARISON})"
    r"|ReplaceComparisonOperator_(Is_IsNot|IsNot_Is)|ReplaceUnaryOperator_(USub_UAdd|Delete_Not)|AddNot|ReplaceTrueWithFalse"
    r"|ReplaceFalseWithTrue|ReplaceAndWithOr|ReplaceOrWithAnd|ReplaceBreakWithContinue|ReplaceContinueWithBreak"
    r"|ExceptionReplacer|NumberReplacer|ZeroIterationForLoop)"
)


class MutantImporter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module's name to other source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Answer for that name alone."""
        return importlib.util.spec_from_loader(name, self, origin=str(self.path)) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the other source."""
        exec(compile(self.source, self.path, "exec"), module.__dict__)


def list_mutants(source: str) -> list[tuple[str, int, str]]:
    """All mutants that differ from the source and from each other, as (operator, occurrence, source)."""
    found: dict[str, tuple[str, int]] = {}
    for name in filter(OPERATORS.fullmatch, sorted(plugins.operator_names())):
        occurrence = 0
        while (mutant := mutate_code(source, plugins.get_operator(name)(), occurrence)) is not None:
            if mutant != source:
                found.setdefault(mutant, (name, occurrence))
            occurrence += 1
    return [(name, occurrence, mutant) for mutant, (name, occurrence) in found.items()]


def run_tests(path: Path, source: str, tests: list[str], seconds: int | None) -> tuple[bool, float]:
    """Whether the tests pass with `source` for the module at `path`, and the processor time they took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        if seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        name = ".".join(path.with_suffix("").parts)
        sys.meta_path.insert(0, MutantImporter(name, path, source))
        os._exit(pytest.main([*OPTIONS, *tests]))
    _, status = os.waitpid(child, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return status == 0, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def describe(source: str, mutant: str) -> str:
    """The first line that differs, as it was and as it is."""
    lines = enumerate(zip(source.splitlines(), mutant.splitlines(), strict=False), 1)
    number, (was, became) = next((number, pair) for number, pair in lines if pair[0] != pair[1])
    return f"{number}: {was.strip()}  ->  {became.strip()}"


def score_module(path: Path, tests: list[str], sample: int) -> None:
    """Judge a sample of the mutants of one module and print its score and the mutants that survived."""
    source = path.read_text(encoding="utf-8")
    passed, seconds = run_tests(path, source, tests, None)
    if not passed:
        raise SystemExit(f"{path}: its tests fail on the module as it is; run: pytest {' '.join(tests)}")
    mutants = list_mutants(source)
    chosen = random.Random(SEED).sample(mutants, min(sample, len(mutants)))
    limit = int(10 * seconds) + 5
    survivors = [mutant for _, _, mutant in chosen if run_tests(path, mutant, tests, limit)[0]]
    killed = len(chosen) - len(survivors)
    print(f"{path}: {killed} of {len(chosen)} killed ({killed / len(chosen):.0%}), {len(mutants)} mutants in all")
    for line in sorted(describe(source, mutant) for mutant in survivors):
        print(f"  survived {line}")
    sys.stdout.flush()


def main() -> None:
    """Score the modules named, or all of the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="files of the table; all without")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants of each module")
    arguments = parser.parse_args()
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(Path.cwd()))
    hypothesis.settings.register_profile("mutation", derandomize=True, database=None, deadline=None)
    hypothesis.settings.load_profile("mutation")
    table: dict[str, list[str]] = json.loads(arguments.table.read_text())
    for module in arguments.modules or table:
        score_module(Path(module), table[module], arguments.sample)


if __name__ == "__main__":
    main()
