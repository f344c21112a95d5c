"""The first signal asks a process to end in good order, the second ends it at once, wherever it is."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from diffood.runtime.stop import Stop, ending_at_second_signal, handle_signals

PROGRAM = """
import ctypes, itertools, sys, time
from diffood.runtime.stop import Stop, ending_at_second_signal, handle_signals

class SlowFinalizer:
    def __del__(self):
        time.sleep(600)

with ending_at_second_signal(), handle_signals(Stop()):
    exec(sys.argv[1])
    print(flush=True)
    exec(sys.argv[2])
"""
PLACES = {
    "a native call that keeps Python's lock": ("", "sum(itertools.repeat(1))"),
    "a loop of numpy": ("import numpy", "numpy.broadcast_to(numpy.float32(1), 2**60).sum()"),
    "a call of ONNX Runtime": (
        "from onnxruntime import InferenceSession as Graph; graph = Graph('loop.onnx')",
        "graph.run(None, {})",
    ),
    "a finalizer": ("", "SlowFinalizer()"),
    "a wait for threads": (
        "from concurrent.futures import ThreadPoolExecutor as Pool",
        "with Pool() as pool: pool.submit(time.sleep, 600)",
    ),
}
TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.fixture
def endless_graph(tmp_path: Path) -> Path:
    """The folder of loop.onnx, which counts to 2^62."""
    scalar = lambda name, kind: helper.make_tensor_value_info(name, kind, [])  # noqa: E731
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [scalar("step", TensorProto.INT64), scalar("go", TensorProto.BOOL), scalar("x", TensorProto.INT64)],
        [scalar("on", TensorProto.BOOL), scalar("y", TensorProto.INT64)],
    )
    start = [
        helper.make_tensor(name, kind, [], [value])
        for name, kind, value in (("times", TensorProto.INT64, 2**62), ("true", TensorProto.BOOL, 1))
    ]
    loop = helper.make_node("Loop", ["times", "true", "times"], ["end"], body=body)
    graph = helper.make_graph([loop], "endless", [], [scalar("end", TensorProto.INT64)], start)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "loop.onnx")
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="pending signals as Linux shows them")
def test_the_second_signal_ends_the_process_wherever_it_is(endless_graph: Path, subtests: pytest.Subtests) -> None:
    for place, *signals in [*((place, TERM, TERM) for place in PLACES), ("a loop of numpy", INT, TERM)]:
        with subtests.test(place=place, signals=signals):
            command = [sys.executable, "-c", PROGRAM, *PLACES[place]]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=endless_graph)
            assert process.stdout
            try:
                assert process.stdout.readline() == b"\n"
                for number in signals:
                    process.send_signal(number)
                    while process.poll() is None and is_pending(process.pid):
                        pass
                _, err = process.communicate(timeout=60)
            finally:
                process.kill()
            assert process.returncode in (-signals[1], 128 + signals[1]), err
            assert b"Traceback" not in err


STUCK = """
import os, sys
sys.path[:0] = [os.getcwd()]
from diffood.runtime.child import Child
child = Child("stuck", environment=os.environ)
print(child._process.pid, child.receive(100), flush=True)
child.receive(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends children with their parent")
def test_a_child_ends_with_its_parent_whatever_it_does(tmp_path: Path) -> None:
    stuck = "import itertools\nfrom diffood.runtime.child import serve_parent\n"
    stuck += "def main():\n    pipe = serve_parent(99)\n    sum(itertools.repeat(1))\n"
    (tmp_path / "stuck.py").write_text(stuck)
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, cwd=tmp_path, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline().split()[0])
        parent.kill()
    state = Path(f"/proc/{child}/status")
    while state.exists() and not re.search(r"^State:\s*[ZX]", state.read_text(), re.MULTILINE):
        time.sleep(0.01)  # for ever, without the fix


def is_pending(process: int) -> bool:
    """Whether a process has not noticed a signal yet; the same signal would then be lost."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(int(mask, 16) for mask in re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)$", status, re.MULTILINE))


def test_a_stop_counts_signals_and_gives_the_shells_code(subtests: pytest.Subtests) -> None:
    before = {number: signal.getsignal(number) for number in (INT, TERM)}
    for number, code in ((INT, 130), (TERM, 143)):
        with subtests.test(number=number):
            stop = Stop()
            with handle_signals(stop):
                signal.raise_signal(number)
                assert (stop.requested, stop.exit_code) == (True, code)
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(number)
            with pytest.raises(KeyboardInterrupt), ending_at_second_signal() as signals:
                signal.raise_signal(number)
            assert (signals.interrupted, signals.exit_code) == (True, code)
        signal.signal(number, before[number])
