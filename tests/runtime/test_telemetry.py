"""Nothing leaves the device: ONNX Runtime reports to nobody, in none of the processes that diffood starts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cheap_calibration import calibrate_cheaply

ROOT = Path(__file__).parents[2]
STRACE = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg"]
PREDICT = """
import sys
import numpy as np
from diffood import Detector
Detector.open(sys.argv[1], "plain", batch=1, threads=1).score(np.zeros((1, 28, 28), np.uint8))
"""


def can_trace() -> bool:
    """Whether strace is installed and may look into a process."""
    return shutil.which("strace") is not None and not subprocess.run([*STRACE, "true"], check=False).returncode


def test_nothing_is_looked_up_sent_or_left_under_the_home_folder(
    small_bundle_copy: Path, folder: Path, tmp_path: Path
) -> None:
    """A variable such as CI would silence ONNX Runtime, so the processes get no more than what is named here."""
    calibrate_cheaply(small_bundle_copy, folder)
    (home := tmp_path / "home").mkdir()
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    commands = [
        ["-m", "diffood", "serve-batch", small_bundle_copy, folder, "--output", tmp_path / "rows.csv", "--decoders", 2],
        ["-m", "diffood", "doctor"],
        ["-c", PREDICT, small_bundle_copy],
    ]
    for number, command in enumerate(commands):
        trace = tmp_path / f"trace-{number}"
        watched = [*STRACE, "-o", trace] if can_trace() else []
        words = list(map(str, [*watched, sys.executable, *command]))
        done = subprocess.run(words, env=kept | {"HOME": str(home)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert list(home.rglob("*")) == [], command
        assert not trace.exists() or "AF_INET" not in trace.read_text(), command


def test_onnxruntime_imported_first_is_warned_of_unless_its_telemetry_is_off() -> None:
    program = "import sys; sys.modules['onnxruntime'] = sys; import diffood"
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    for variables, warned in (({}, True), ({"ORT_DISABLE_TELEMETRY": "1"}, False)):
        done = subprocess.run(
            [sys.executable, "-c", program], env=kept | variables, capture_output=True, text=True, check=True
        )
        assert ("import diffood first, or set ORT_DISABLE_TELEMETRY=1" in done.stderr) is warned


def test_programs_outside_the_package_turn_telemetry_off_before_onnxruntime_is_imported() -> None:
    """The package does so as its first act, and tests/conftest.py for the tests."""
    programs = [path for room in ("benchmarks", "research", "docs") for path in (ROOT / room).rglob("*.py")]
    for path in [*programs, ROOT / "tests" / "mutation" / "score.py"]:
        text = path.read_text()
        if found := re.search(r"^\s*(import|from) onnxruntime\b", text, re.MULTILINE):
            before = text[: found.start()]
            assert re.search(r"^\s*(import|from) diffood\b|ORT_DISABLE_TELEMETRY", before, re.MULTILINE), path
