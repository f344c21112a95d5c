"""Limits of time and memory while something of unknown origin is opened."""

import subprocess
import sys
import threading

import pytest

from diffood.errors import BundleError
from diffood.runtime import budget
from diffood.runtime.budget import limited_memory, load_within, memory_budget

OWN_PROCESS = """
import resource
from diffood.errors import EngineMemoryError
from diffood.runtime.budget import limited_memory, own_process

before = resource.getrlimit(resource.RLIMIT_DATA)
try:
    with own_process(), limited_memory(2**28):
        bytearray(2**27)
        bytearray(2**31)
except EngineMemoryError as error:
    print(error)
assert resource.getrlimit(resource.RLIMIT_DATA) == before
bytearray(2**29)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory need Linux")
def test_memory_is_limited_for_a_moment_in_a_process_of_our_own() -> None:
    done = subprocess.run([sys.executable, "-c", OWN_PROCESS], capture_output=True, text=True, check=True)
    assert done.stdout == "Out of memory. It may take 256 MiB, more than such a model needs.\n"


def test_the_memory_of_other_programs_is_not_limited() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(0):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
        bytearray(2**26)


def test_a_load_that_computes_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "LOAD_SECONDS", 0.05)
    enough = threading.Event()

    def compute() -> None:
        while not enough.is_set():
            pass

    try:
        with pytest.raises(
            BundleError, match=r"classify.onnx takes more than 0 s of computing to load, longer than any"
        ):
            load_within(compute, 0, "classify.onnx")
    finally:
        enough.set()


def test_what_a_load_gives_or_raises_comes_through() -> None:
    assert load_within(lambda: 5, 0, "") == 5
    with pytest.raises(ZeroDivisionError):
        load_within(lambda: 1 // 0, 0, "")


def test_the_budget_of_a_small_model_is_below_the_promise_and_grows_with_weights_and_images() -> None:
    assert memory_budget(2**20, 2) < 2**31 - 2**28  # Python and its libraries have the rest
    assert memory_budget(2**30) > memory_budget(0) + 2**31
    assert memory_budget(0, 1, 2**22) > memory_budget(0) + 2**30
