"""The corpus of every fuzz target, and thousands of mutants, in a process each; `make fuzz` goes on from there."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TARGETS = sorted(path.stem for path in (HERE / "targets").glob("[a-z]*.py"))
EXAMPLES = 1500
MOST_CORPUS_BYTES = 200_000
JUDGE = """
import sys
sys.path[:0] = sys.argv[1:]
import oracle
from diffood.errors import UsageError
def refuse(text): raise UsageError(text)
def wrong(kind): raise kind("not one of ours")
assert oracle.attempt(lambda: None) and not oracle.attempt(lambda: refuse("too short; give more."))
for work, expected in (
    (lambda: wrong(KeyError), KeyError), (lambda: wrong(RecursionError), RecursionError),
    (lambda: refuse("two" + chr(10) + "lines"), AssertionError), (lambda: refuse("x" * 10_000), AssertionError),
):
    try:
        oracle.attempt(work)
    except expected:
        continue
    raise SystemExit(f"{expected} passes")
"""


def fuzz(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(HERE / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")


def test_only_errors_of_ours_on_one_line_pass() -> None:
    """Otherwise the tests below could not fail."""
    paths = [str(HERE), str(HERE.parent / "support")]
    done = subprocess.run([sys.executable, "-c", JUDGE, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_target_has_a_small_corpus() -> None:
    files = [path for path in (HERE / "corpus").rglob("*") if path.is_file()]
    assert sorted({path.parent.name for path in files}) == TARGETS
    assert sum(path.stat().st_size for path in files) < MOST_CORPUS_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_mutants_are_used_or_refused(target: str) -> None:
    if target == "tensors":
        pytest.importorskip("torch")
    done = fuzz(target, "--examples", str(EXAMPLES))
    assert done.returncode == 0, done.stderr[-5000:]
    assert f"and {EXAMPLES} mutants" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed (extra fuzz)")
def test_guided_runs_learn(tmp_path: Path) -> None:
    done = fuzz("urls", "--minutes", "0.1", "--findings", str(tmp_path))
    assert done.returncode == 0, done.stderr[-5000:]
    assert list((tmp_path / "urls").iterdir())
